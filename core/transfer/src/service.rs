//! The service: what all transfers share, and the contract's calls.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    image::Image,
    metadata::Stores,
    snapshot::Snapshotter,
    transfer::{Archive, ArchiveSink, Backend, Export, Import, Progress, Pull, Push, Unpack},
    verifier::ImageVerifier,
};
use kevel_diff::Processors;
use kevel_model::{Code, Context as _, Descriptor, Digest, Error, Labels, Namespace, Platform, Reference, Result};
use kevel_registry::{Budget, Credentials, Options, Registry, Session, Settings};
use tokio::sync::Semaphore;

use crate::{
    Config,
    flight::Flights,
    lease::{Held, Leases},
    listeners::{Audience, Listeners},
    same::Same,
};

/// A snapshotter and how it may be used.
#[derive(Clone, Debug)]
pub struct Snapshotting {
    /// The snapshotter, namespaced.
    pub snapshotter: Snapshotter,
    /// Whether it takes the parent of a snapshot as late as on commit.
    pub rebases: bool,
    /// Whether it asks to be told which layer and image a snapshot is for, as remote ones do.
    pub annotates: bool,
}

/// What a service works on and with.
pub struct Parts {
    /// The stores of the node.
    pub stores: Stores,
    /// Snapshotters by name.
    pub snapshotters: BTreeMap<String, Snapshotting>,
    /// Who is asked whether an image may be pulled, by name.
    pub verifiers: BTreeMap<String, ImageVerifier>,
    /// What turns layers of other media types into archives.
    pub processors: Processors,
    /// A directory for temporary mounts.
    pub mounts: PathBuf,
}

/// The transfer service. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

/// What all transfers of the node share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) stores: Stores,
    pub(crate) snapshotters: BTreeMap<String, Snapshotting>,
    pub(crate) verifiers: BTreeMap<String, ImageVerifier>,
    pub(crate) processors: Processors,
    /// Where temporary mounts go.
    pub(crate) mounts: PathBuf,
    registry: Registry,
    leases: Leases,
    /// Pulls under way.
    pub(crate) pulls: Flights<Same, Image>,
    /// Who is told of them.
    pub(crate) audience: Audience<Same>,
    /// Downloads under way.
    pub(crate) blobs: Flights<(Namespace, Digest)>,
    /// Unpacking under way, by snapshotter and chain id.
    pub(crate) chains: Flights<(Namespace, String, Digest)>,
    /// Layers that are unpacked, where that has a limit for the whole node.
    unpacks: Option<Arc<Semaphore>>,
    /// Connections, and bytes between sockets and appliers.
    pub(crate) budget: Budget,
}

/// One transfer under way. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) shared: Arc<Shared>,
    held: Arc<Held>,
    /// The registry that content comes from; none for what is on the node.
    pub(crate) session: Option<Session>,
    /// Blobs under way in this transfer.
    pub(crate) downloads: Arc<Semaphore>,
    /// Layers that are unpacked.
    pub(crate) unpacks: Arc<Semaphore>,
    /// How its blobs are cut into parts.
    pub(crate) parts: kevel_registry::Parts,
    /// The longest that nothing may arrive.
    pub(crate) patience: Option<Duration>,
    /// Whether layers are flushed before they are committed.
    pub(crate) sync_fs: bool,
    listeners: Arc<Listeners>,
}

/// How a transfer talks to registries and to whoever waits for it.
#[derive(Default)]
pub(crate) struct Manner {
    pub(crate) registry: kevel_contract::transfer::Registry,
    pub(crate) max_concurrent_downloads: Option<usize>,
    pub(crate) layer_fetch_buffer: Option<u64>,
    pub(crate) patience: Option<Duration>,
    pub(crate) sync_fs: bool,
    pub(crate) listeners: Arc<Listeners>,
}

impl Service {
    /// A service over the stores.
    pub fn new(config: Config, parts: Parts) -> Self {
        let mut settings = Settings::default();
        if !config.config_path.is_empty() {
            settings.config_paths = config.config_paths();
        }
        Self::with_registry(config, parts, Registry::new(settings))
    }

    /// The same with a registry client that exists already.
    pub fn with_registry(config: Config, parts: Parts, registry: Registry) -> Self {
        let unpacks = config.max_concurrent_unpacks;
        Self(Arc::new(Shared {
            leases: Leases::new(parts.stores.leases.clone()),
            pulls: Flights::default(),
            audience: Audience::default(),
            blobs: Flights::default(),
            chains: Flights::default(),
            unpacks: (unpacks > 0).then(|| limit(unpacks, Semaphore::MAX_PERMITS)),
            budget: config.budget(),
            mounts: parts.mounts,
            config,
            stores: parts.stores,
            snapshotters: parts.snapshotters,
            verifiers: parts.verifiers,
            processors: parts.processors,
            registry,
        }))
    }

    /// Finds what transfers of a daemon before left behind that was killed. To be called before the first transfer.
    ///
    /// # Errors
    /// When the stores do not answer.
    pub async fn recover(&self) -> Result<()> {
        for (namespace, _) in self.0.stores.namespaces.list().await? {
            self.0.leases.find_left(&namespace).await?;
        }
        Ok(())
    }

    /// A transfer of what is on the node.
    pub(crate) async fn local_job(&self, scope: &Scope) -> Result<Job> {
        let held = self.0.leases.hold(scope).await.context(|| "making a lease for the transfer")?;
        Ok(Job {
            shared: Arc::clone(&self.0),
            held,
            session: None,
            downloads: limit(self.0.config.max_concurrent_downloads, Semaphore::MAX_PERMITS),
            unpacks: self.unpacks(self.0.config.max_concurrent_downloads),
            parts: self.0.config.parts(None),
            patience: None,
            sync_fs: false,
            listeners: Arc::default(),
        })
    }

    /// A transfer from or to a registry.
    pub(crate) async fn registry_job(&self, scope: &Scope, reference: &Reference, manner: Manner) -> Result<Job> {
        let registry = manner.registry;
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
        let downloads = manner.max_concurrent_downloads.unwrap_or(self.0.config.max_concurrent_downloads);
        Ok(Job {
            session: Some(session),
            downloads: limit(downloads, Semaphore::MAX_PERMITS),
            unpacks: self.unpacks(downloads),
            parts: self.0.config.parts(manner.layer_fetch_buffer),
            patience: manner.patience,
            sync_fs: manner.sync_fs,
            listeners: manner.listeners,
            ..self.local_job(scope).await?
        })
    }

    /// The limit of layers that a transfer unpacks at the same time: as many as it downloads and as there are
    /// processors. It is the transfer's own, because a layer that is unpacked while it arrives waits for its registry,
    /// and a slow registry must not hold up the pulls from others.
    fn unpacks(&self, downloads: usize) -> Arc<Semaphore> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.0.unpacks.clone().unwrap_or_else(|| limit(downloads.max(processors).max(2), Semaphore::MAX_PERMITS))
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
        self.listeners.tell(|| Progress {
            event: event.to_owned(),
            name: name.to_owned(),
            parents: Vec::new(),
            progress: bytes.0,
            total: bytes.1,
            descriptor: descriptor.cloned(),
        });
    }

    /// Waits for something of the registry's, no longer than the transfer is willing to.
    pub(crate) async fn patiently<T>(&self, what: &str, of: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(patience) = self.patience else { return of.await };
        let waited = tokio::time::timeout(patience, of).await;
        waited.unwrap_or_else(|_| Err(Error::deadline_exceeded(format!("nothing arrived of {what} for {patience:?}"))))
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

fn limit(limit: usize, unlimited: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(if limit == 0 { unlimited } else { limit.min(Semaphore::MAX_PERMITS) }))
}

/// The platforms to take: the host's if none are named.
pub(crate) fn or_host(platforms: Vec<Platform>) -> Vec<Platform> {
    if platforms.is_empty() { vec![Platform::host()] } else { platforms }
}

#[async_trait]
impl Backend for Service {
    async fn pull(&self, scope: &Scope, pull: Pull) -> Result<Image> {
        let doing = format!("pulling {}", pull.reference);
        self.share_pull(scope, pull).await.context(|| doing)
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
