//! Core services that are empty and refuse to change, and count who tried.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use kevel_contract::{
    Scope, call::Target, container, content, event, image, introspection, metadata, metric, sandbox, snapshot, task,
    transfer,
};
use kevel_cri_nri::{Nri, NriConfig};
use kevel_cri_server::{ImageParts, Images, Parts, Server, Settings, config};
use kevel_cri_streaming::{Config, Endpoint};
use kevel_model::{Any, Digest, Error, Filters, Labels, Mount, Platform, Result};

/// Everything that the CRI uses. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    changes: Arc<AtomicUsize>,
}

impl Fake {
    /// How often somebody tried to change something.
    pub(crate) fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    fn refuse<T>(&self) -> Result<T> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        Err(Error::internal("this fake changes nothing"))
    }
}

fn absent<T>() -> Result<T> {
    Err(Error::not_found("this fake has nothing"))
}

/// A server over a fake, with its files in `dir`.
pub(crate) async fn server(fake: &Fake, dir: &Path) -> Arc<Server> {
    let target = || Target::local("fake");
    let snapshotter = snapshot::Snapshotter::new(target(), fake.clone());
    let snapshotters = Arc::new(BTreeMap::from([("overlayfs".to_owned(), snapshotter)]));
    let metrics = metric::MetricRegistry::default();
    let events = event::EventExchange::new(target(), fake.clone());
    let parts = ImageParts {
        images: image::ImageStore::new(target(), fake.clone()),
        content: content::ContentStore::new(target(), fake.clone()),
        snapshotters: snapshotters.clone(),
        garbage: metadata::GarbageCollector::new(target(), fake.clone()),
        transfer: transfer::Transfer::new(target(), fake.clone()),
        events: events.clone(),
        metrics: metrics.clone(),
        config: config::ImagesConfig::default(),
        root: dir.to_owned(),
    };
    let mut runtime = config::RuntimeConfig::default();
    runtime.cni.conf_dir = dir.join("cni");
    runtime.cni.cache_dir = dir.join("cache");
    runtime.cni.fallback = false;
    let server = Server::new(Parts {
        containers: container::ContainerStore::new(target(), fake.clone()),
        sandboxes: sandbox::SandboxStore::new(target(), fake.clone()),
        tasks: task::Tasks::new(target(), fake.clone()),
        snapshotters,
        events,
        introspection: introspection::Introspection::new(target(), fake.clone()),
        controllers: [("podsandbox".to_owned(), sandbox::SandboxController::new(target(), fake.clone()))].into(),
        images: Images::new(parts).await.unwrap(),
        nri: Nri::new(NriConfig { disable: true, ..NriConfig::default() }),
        settings: Arc::new(Settings::new(runtime, dir.join("root"), dir.join("state")).unwrap()),
        streaming: Endpoint::bind(&Config::default()).await.unwrap().0,
        metrics,
        storage: None,
        search_path: Vec::new(),
    });
    let server = server.unwrap();
    server.recover().await.unwrap();
    server
}

#[async_trait]
impl container::Backend for Fake {
    async fn get(&self, _: &Scope, _: &str) -> Result<container::Container> {
        absent()
    }
    async fn list(&self, _: &Scope, _: &Filters) -> Result<Vec<container::Container>> {
        Ok(Vec::new())
    }
    async fn create(&self, _: &Scope, _: container::Container) -> Result<container::Container> {
        self.refuse()
    }
    async fn update(&self, _: &Scope, _: container::Container, _: &[String]) -> Result<container::Container> {
        self.refuse()
    }
    async fn delete(&self, _: &Scope, _: &str) -> Result<()> {
        self.refuse()
    }
}

#[async_trait]
impl sandbox::StoreBackend for Fake {
    async fn get(&self, _: &Scope, _: &str) -> Result<sandbox::Sandbox> {
        absent()
    }
    async fn list(&self, _: &Scope, _: &Filters) -> Result<Vec<sandbox::Sandbox>> {
        Ok(Vec::new())
    }
    async fn create(&self, _: &Scope, _: sandbox::Sandbox) -> Result<sandbox::Sandbox> {
        self.refuse()
    }
    async fn update(&self, _: &Scope, _: sandbox::Sandbox, _: &[String]) -> Result<sandbox::Sandbox> {
        self.refuse()
    }
    async fn delete(&self, _: &Scope, _: &str) -> Result<()> {
        self.refuse()
    }
}

#[async_trait]
impl sandbox::ControllerBackend for Fake {
    async fn create(&self, _: &Scope, _: sandbox::Create) -> Result<()> {
        self.refuse()
    }
    async fn start(&self, _: &Scope, _: &str) -> Result<sandbox::Started> {
        self.refuse()
    }
    async fn platform(&self, _: &Scope, _: &str) -> Result<Platform> {
        Ok(Platform::host())
    }
    async fn stop(&self, _: &Scope, _: &str, _: Duration) -> Result<()> {
        self.refuse()
    }
    async fn wait(&self, _: &Scope, _: &str) -> Result<sandbox::Exit> {
        absent()
    }
    async fn status(&self, _: &Scope, _: &str, _: bool) -> Result<sandbox::Status> {
        absent()
    }
    async fn shutdown(&self, _: &Scope, _: &str) -> Result<()> {
        self.refuse()
    }
    async fn metrics(&self, _: &Scope, _: &str) -> Result<task::Metric> {
        absent()
    }
    async fn update(&self, _: &Scope, _: sandbox::Sandbox, _: &[String]) -> Result<()> {
        self.refuse()
    }
}

#[async_trait]
impl snapshot::Backend for Fake {
    async fn stat(&self, _: &Scope, _: &str) -> Result<snapshot::Info> {
        absent()
    }
    async fn update(&self, _: &Scope, _: snapshot::Info, _: &[String]) -> Result<snapshot::Info> {
        self.refuse()
    }
    async fn usage(&self, _: &Scope, _: &str) -> Result<snapshot::Usage> {
        absent()
    }
    async fn mounts(&self, _: &Scope, _: &str) -> Result<Vec<Mount>> {
        absent()
    }
    async fn prepare(&self, _: &Scope, _: &str, _: &str, _: Labels) -> Result<Vec<Mount>> {
        self.refuse()
    }
    async fn view(&self, _: &Scope, _: &str, _: &str, _: Labels) -> Result<Vec<Mount>> {
        self.refuse()
    }
    async fn commit(&self, _: &Scope, _: &str, _: &str, _: snapshot::Commit) -> Result<()> {
        self.refuse()
    }
    async fn remove(&self, _: &Scope, _: &str) -> Result<()> {
        self.refuse()
    }
    async fn list(&self, _: &Scope, _: &Filters) -> Result<Vec<snapshot::Info>> {
        Ok(Vec::new())
    }
    async fn cleanup(&self, _: &Scope) -> Result<()> {
        self.refuse()
    }
}

#[async_trait]
impl event::Backend for Fake {
    async fn publish(&self, _: &Scope, _: &str, _: Any) -> Result<()> {
        self.refuse()
    }
    async fn forward(&self, _: event::Envelope) -> Result<()> {
        self.refuse()
    }
    async fn subscribe(&self, _: &Filters) -> Result<BoxStream<'static, Result<event::Envelope>>> {
        Ok(Box::pin(futures::stream::pending()))
    }
}

#[async_trait]
impl introspection::Backend for Fake {
    async fn plugins(&self, _: &Filters) -> Result<Vec<Arc<kevel_plugin::Report>>> {
        Ok(Vec::new())
    }
    async fn server(&self) -> Result<introspection::Server> {
        Ok(introspection::Server::default())
    }
    async fn plugin_info(&self, _: &str, _: &str, _: Option<Any>) -> Result<introspection::PluginInfo> {
        absent()
    }
    async fn runtime_info(&self, _: &str, _: Option<Any>) -> Result<introspection::RuntimeInfo> {
        absent()
    }
}

#[async_trait]
impl image::Backend for Fake {
    async fn get(&self, _: &Scope, _: &str) -> Result<image::Image> {
        absent()
    }
    async fn list(&self, _: &Scope, _: &Filters) -> Result<Vec<image::Image>> {
        Ok(Vec::new())
    }
    async fn create(&self, _: &Scope, _: image::Image) -> Result<image::Image> {
        self.refuse()
    }
    async fn update(&self, _: &Scope, _: image::Image, _: &[String]) -> Result<image::Image> {
        self.refuse()
    }
    async fn delete(&self, _: &Scope, _: &str, _: image::Delete) -> Result<()> {
        self.refuse()
    }
}

#[async_trait]
impl content::Backend for Fake {
    async fn info(&self, _: &Scope, _: &Digest) -> Result<content::Info> {
        absent()
    }
    async fn update(&self, _: &Scope, _: content::Info, _: &[String]) -> Result<content::Info> {
        self.refuse()
    }
    async fn list(&self, _: &Scope, _: &Filters) -> Result<Vec<content::Info>> {
        Ok(Vec::new())
    }
    async fn delete(&self, _: &Scope, _: &Digest) -> Result<()> {
        self.refuse()
    }
    async fn open(&self, _: &Scope, _: &Digest) -> Result<Box<dyn content::Blob>> {
        absent()
    }
    async fn status(&self, _: &Scope, _: &str) -> Result<content::Status> {
        absent()
    }
    async fn statuses(&self, _: &Scope, _: &Filters) -> Result<Vec<content::Status>> {
        Ok(Vec::new())
    }
    async fn begin(&self, _: &Scope, _: content::Begin) -> Result<Box<dyn content::Ingest>> {
        self.refuse()
    }
    async fn abort(&self, _: &Scope, _: &str) -> Result<()> {
        self.refuse()
    }
}

#[async_trait]
impl metadata::Collect for Fake {
    async fn collect(&self) -> Result<metadata::Collected> {
        Ok(metadata::Collected::default())
    }
    async fn forget(&self) -> Result<metadata::Collected> {
        Ok(metadata::Collected::default())
    }
}

#[async_trait]
impl transfer::Backend for Fake {
    async fn pull(&self, _: &Scope, _: transfer::Pull) -> Result<image::Image> {
        self.refuse()
    }
    async fn push(&self, _: &Scope, _: transfer::Push) -> Result<()> {
        self.refuse()
    }
    async fn import(&self, _: &Scope, _: transfer::Archive, _: transfer::Import) -> Result<Vec<image::Image>> {
        self.refuse()
    }
    async fn export(&self, _: &Scope, _: transfer::ArchiveSink, _: transfer::Export) -> Result<()> {
        self.refuse()
    }
    async fn unpack(&self, _: &Scope, _: &str, _: transfer::Unpack) -> Result<()> {
        self.refuse()
    }
    async fn tag(&self, _: &Scope, _: &str, _: &str) -> Result<image::Image> {
        self.refuse()
    }
}

#[async_trait]
impl task::Backend for Fake {
    async fn create(&self, _: &Scope, _: task::Create) -> Result<u32> {
        self.refuse()
    }
    async fn start(&self, _: &Scope, _: &str, _: &str) -> Result<u32> {
        self.refuse()
    }
    async fn delete(&self, _: &Scope, _: &str) -> Result<task::Deleted> {
        self.refuse()
    }
    async fn delete_process(&self, _: &Scope, _: &str, _: &str) -> Result<task::Deleted> {
        self.refuse()
    }
    async fn get(&self, _: &Scope, _: &str, _: &str) -> Result<task::Process> {
        absent()
    }
    async fn list(&self, _: &Scope, _: &Filters) -> Result<Vec<task::Process>> {
        Ok(Vec::new())
    }
    async fn kill(&self, _: &Scope, _: task::Kill) -> Result<()> {
        self.refuse()
    }
    async fn exec(&self, _: &Scope, _: task::Exec) -> Result<()> {
        self.refuse()
    }
    async fn resize(&self, _: &Scope, _: &str, _: &str, _: u32, _: u32) -> Result<()> {
        self.refuse()
    }
    async fn close_io(&self, _: &Scope, _: &str, _: &str) -> Result<()> {
        self.refuse()
    }
    async fn pause(&self, _: &Scope, _: &str) -> Result<()> {
        self.refuse()
    }
    async fn resume(&self, _: &Scope, _: &str) -> Result<()> {
        self.refuse()
    }
    async fn pids(&self, _: &Scope, _: &str) -> Result<Vec<task::Pid>> {
        Ok(Vec::new())
    }
    async fn checkpoint(&self, _: &Scope, _: task::Checkpoint) -> Result<Vec<kevel_model::Descriptor>> {
        self.refuse()
    }
    async fn update(&self, _: &Scope, _: task::Update) -> Result<()> {
        self.refuse()
    }
    async fn metrics(&self, _: &Scope, _: &Filters) -> Result<Vec<task::Metric>> {
        Ok(Vec::new())
    }
    async fn wait(&self, _: &Scope, _: &str, _: &str) -> Result<task::Exit> {
        absent()
    }
}
