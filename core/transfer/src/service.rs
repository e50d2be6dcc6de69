//! The service: what all transfers share, and the contract's calls.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    image::Image,
    metadata::Stores,
    snapshot::Snapshotter,
    transfer::{Archive, ArchiveSink, Backend, Export, Import, Progress, Pull, Push, Unpack},
};
use kevel_model::{Code, Context as _, Descriptor, Digest, Error, Labels, Namespace, Platform, Reference, Result};
use kevel_registry::{Credentials, Options, Registry, Session, Settings};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    Config,
    flight::Flights,
    lease::{Held, Leases},
};

/// A snapshotter and how it may be used.
#[derive(Clone, Debug)]
pub struct Snapshotting {
    /// The snapshotter, namespaced.
    pub snapshotter: Snapshotter,
    /// Whether it takes the parent of a snapshot as late as on commit.
    pub rebases: bool,
}

/// The transfer service. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

/// What all transfers of the node share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) stores: Stores,
    pub(crate) snapshotters: BTreeMap<String, Snapshotting>,
    /// Where temporary mounts go.
    pub(crate) mounts: PathBuf,
    registry: Registry,
    leases: Leases,
    /// Downloads under way.
    pub(crate) blobs: Flights<(Namespace, Digest)>,
    /// Unpacking under way, by snapshotter and chain id.
    pub(crate) chains: Flights<(Namespace, String, Digest)>,
    pub(crate) downloads: Arc<Semaphore>,
    pub(crate) unpacks: Arc<Semaphore>,
    /// Bytes between sockets and appliers.
    pub(crate) bytes: Arc<Semaphore>,
}

/// One transfer under way. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) shared: Arc<Shared>,
    held: Arc<Held>,
    /// The registry that content comes from; none for what is on the node.
    pub(crate) session: Option<Session>,
    progress: Option<mpsc::Sender<Progress>>,
}

impl Service {
    /// A service over the stores. `mounts` is a directory for temporary mounts.
    pub fn new(
        config: Config,
        stores: Stores,
        snapshotters: BTreeMap<String, Snapshotting>,
        mounts: impl Into<PathBuf>,
    ) -> Self {
        let mut settings = Settings::default();
        if !config.config_path.is_empty() {
            settings.config_paths = config.config_paths();
        }
        Self::with_registry(config, stores, snapshotters, mounts, Registry::new(settings))
    }

    /// The same with a registry client that exists already.
    pub fn with_registry(
        config: Config,
        stores: Stores,
        snapshotters: BTreeMap<String, Snapshotting>,
        mounts: impl Into<PathBuf>,
        registry: Registry,
    ) -> Self {
        let limit =
            |limit: usize, unlimited: usize| Arc::new(Semaphore::new(if limit == 0 { unlimited } else { limit }));
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Shared {
            leases: Leases::new(stores.leases.clone()),
            blobs: Flights::default(),
            chains: Flights::default(),
            downloads: limit(config.max_concurrent_downloads, Semaphore::MAX_PERMITS),
            unpacks: limit(config.max_concurrent_unpacks, processors.max(2)),
            bytes: limit(config.max_bytes_in_flight.min(u32::MAX as usize), 64 << 20),
            mounts: mounts.into(),
            config,
            stores,
            snapshotters,
            registry,
        }))
    }

    /// A transfer of what is on the node.
    pub(crate) async fn local_job(&self, scope: &Scope) -> Result<Job> {
        let held = self.0.leases.hold(scope).await.context(|| "making a lease for the transfer")?;
        Ok(Job { shared: Arc::clone(&self.0), held, session: None, progress: None })
    }

    /// A transfer from or to a registry.
    pub(crate) async fn registry_job(
        &self,
        scope: &Scope,
        reference: &Reference,
        registry: kevel_contract::transfer::Registry,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Job> {
        let credentials = registry.credentials.map(|credentials| Credentials {
            username: credentials.username,
            secret: credentials.secret,
            registry_token: credentials.registry_token,
        });
        let options = Options {
            config_paths: registry.config_paths,
            credentials,
            headers: registry.headers,
            plain_http: registry.plain_http,
        };
        let session = self.0.registry.session(reference, options).await?;
        Ok(Job { session: Some(session), progress, ..self.local_job(scope).await? })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Job {
    /// The caller's namespace under the transfer's lease.
    pub(crate) fn scope(&self) -> &Scope {
        self.held.scope()
    }

    /// Tells whoever listens; news that don't fit are dropped.
    pub(crate) fn tell(&self, event: &str, name: &str, bytes: (u64, u64), descriptor: Option<&Descriptor>) {
        let Some(progress) = &self.progress else { return };
        let _ = progress.try_send(Progress {
            event: event.to_owned(),
            name: name.to_owned(),
            parents: Vec::new(),
            progress: bytes.0,
            total: bytes.1,
            descriptor: descriptor.cloned(),
        });
    }

    /// Makes an image, or points the one of that name to the new target.
    pub(crate) async fn name_image(&self, name: &str, target: Descriptor, labels: Labels) -> Result<Image> {
        let images = &self.shared.stores.images;
        let scope = self.scope();
        let mut paths = vec!["target".to_owned()];
        paths.extend(labels.keys().map(|key| format!("labels.{key}")));
        let image = Image::new(name, target, labels);
        // Who deletes the image between our two calls is met by another round.
        for _ in 0..3 {
            match images.create(scope, image.clone()).await {
                Err(error) if error.is_already_exists() => {}
                other => return other.context(|| format!("making image {name:?}")),
            }
            match images.update(scope, image.clone(), &paths).await {
                Err(error) if error.is_not_found() => {}
                other => return other.context(|| format!("updating image {name:?}")),
            }
        }
        Err(Error::new(Code::Aborted, format!("image {name:?} is made and removed by somebody else all the time")))
    }
}

/// The platforms to take: the host's if none are named.
pub(crate) fn or_host(platforms: Vec<Platform>) -> Vec<Platform> {
    if platforms.is_empty() { vec![Platform::host()] } else { platforms }
}

#[async_trait]
impl Backend for Service {
    async fn pull(&self, scope: &Scope, pull: Pull) -> Result<Image> {
        let doing = format!("pulling {}", pull.reference);
        self.pull_image(scope, pull).await.context(|| doing)
    }

    async fn push(&self, scope: &Scope, push: Push) -> Result<()> {
        let doing = format!("pushing {} to {}", push.name, push.reference);
        self.push_image(scope, push).await.context(|| doing)
    }

    async fn import(&self, scope: &Scope, archive: Archive, import: Import) -> Result<Vec<Image>> {
        self.import_archive(scope, archive, import).await.context(|| "importing an archive")
    }

    async fn export(&self, scope: &Scope, archive: ArchiveSink, export: Export) -> Result<()> {
        let doing = format!("exporting {}", export.names.join(", "));
        self.export_archive(scope, archive, export).await.context(|| doing)
    }

    async fn unpack(&self, scope: &Scope, name: &str, unpack: Unpack) -> Result<()> {
        self.unpack_image(scope, name, unpack).await.context(|| format!("unpacking {name}"))
    }

    async fn tag(&self, scope: &Scope, name: &str, new_name: &str) -> Result<Image> {
        if new_name.is_empty() {
            return Err(Error::invalid_argument("the new name of the image is empty"));
        }
        let image = self.shared().stores.images.get(scope, name).await?;
        let job = self.local_job(scope).await?;
        job.name_image(new_name, image.target, image.labels).await
    }
}
