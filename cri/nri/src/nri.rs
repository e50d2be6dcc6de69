//! What the CRI calls at each step of a pod's and a container's life.
//!
//! Plugins are asked one after the other, in the order of their indices. Each takes one request at a time, in the order
//! in which they were made, and a slow plugin holds up only those who need it. Nothing is done and nothing described
//! while there is no plugin.

mod ask;
mod container;
mod pod;

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use kevel_model::{Error, Result};
use tokio::sync::{OwnedRwLockReadGuard, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    NriConfig,
    api::{Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, LinuxResources, PodSandbox},
    launch, listen, metrics,
    plugin::{Peer, Phase},
    stage::{Stage, Stages},
    validator::Validator,
};

/// How long plugins may take to hear that the daemon ends, and their processes to be gone.
const FAREWELL: Duration = Duration::from_secs(1);
const GONE: Duration = Duration::from_secs(5);

/// What the CRI offers to plugins.
#[async_trait]
pub trait Domain: Send + Sync + 'static {
    /// Every pod, and every container that has not ended.
    async fn list(&self) -> Result<(Vec<PodSandbox>, Vec<Container>)>;
    /// Changes a container's limits to what is set in `limits`. One that is gone is no error.
    async fn update(&self, container: &str, limits: &LinuxResources) -> Result<()>;
    /// Stops a container without grace. One that is gone is no error.
    async fn evict(&self, container: &str, reason: &str) -> Result<()>;
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// The pod.
    pub pod: PodSandbox,
    /// The container, in events of containers.
    pub container: Option<Container>,
}

/// What plugins together want of a container that is being made.
pub type Adjusted = Option<ContainerAdjustment>;

/// While it is held, no plugin is told what is there. Whoever tells plugins of something new, or of something that goes,
/// holds it until lists show the same: so a plugin that joins meanwhile sees each thing exactly once.
pub struct Entered(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockReadGuard<()>);

/// The plugins and what they were told.
pub struct Nri {
    pub(crate) config: NriConfig,
    validator: Option<Validator>,
    plugins: RwLock<Arc<Vec<Arc<Peer>>>>,
    joining: Arc<tokio::sync::RwLock<()>>,
    stages: Stages,
    domain: Mutex<Option<Arc<dyn Domain>>>,
    stop: CancellationToken,
    running: TaskTracker,
}

impl Nri {
    /// Without plugins yet; see [`Nri::start`].
    pub fn new(config: NriConfig) -> Arc<Self> {
        let validator = Validator::new(config.default_validator.clone()).filter(|_| !config.disable);
        Arc::new(Self {
            config,
            validator,
            plugins: RwLock::default(),
            joining: Arc::default(),
            stages: Stages::default(),
            domain: Mutex::default(),
            stop: CancellationToken::new(),
            running: TaskTracker::new(),
        })
    }

    /// Starts the plugins that are installed, waits until each is ready or has failed, then lets others connect. `found`
    /// is how far everything is that was there before.
    ///
    /// # Errors
    /// When the plugins can't be looked for or the socket can't be opened. A plugin that fails is logged. So is a socket
    /// at which another process listens: it is not taken away, and nobody can connect.
    pub async fn start(
        self: &Arc<Self>,
        domain: Arc<dyn Domain>,
        found: impl IntoIterator<Item = (String, Stage)>,
    ) -> Result<()> {
        if self.config.disable {
            return Ok(());
        }
        self.stages.begin(found);
        *self.domain.lock().unwrap_or_else(PoisonError::into_inner) = Some(domain);
        self.count();
        let (plugins, configs) = (self.config.plugin_path.clone(), self.config.plugin_config_path.clone());
        let installed = tokio::task::spawn_blocking(move || launch::discover(&plugins, &configs)).await;
        let installed = installed.map_err(|error| Error::internal("looking for NRI plugins").with_source(error))??;
        let firsts: Vec<_> = installed
            .into_iter()
            .map(|plugin| {
                let (first, ready) = oneshot::channel();
                self.running.spawn(launch::keep(self.clone(), plugin, first, self.stop.clone()));
                ready
            })
            .collect();
        join_all(firsts).await;
        if self.config.disable_connections {
            return Ok(());
        }
        match listen::open(&self.config.socket_path).await {
            Ok(listener) => {
                self.running.spawn(listen::accept(self.clone(), listener, self.stop.clone()));
            }
            Err(error) if error.is_already_exists() => {
                tracing::error!(error = error.chain(), "no NRI plugin can connect");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells every plugin that the daemon ends, and ends those that it started.
    pub async fn stop(&self) {
        let plugins = self.plugins();
        join_all(plugins.iter().map(|plugin| plugin.send("Shutdown", bytes::Bytes::new(), FAREWELL))).await;
        self.stop.cancel();
        plugins.iter().for_each(|plugin| plugin.close());
        self.running.close();
        if tokio::time::timeout(GONE, self.running.wait()).await.is_err() {
            tracing::warn!("NRI plugins did not end");
        }
        self.domain.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether there is anybody to ask.
    pub fn is_heard(&self) -> bool {
        self.validator.is_some() || !self.plugins().is_empty()
    }

    /// Keeps plugins from joining until the answer is dropped. Take it once in an operation, and not before anything that
    /// may take long but the plugins.
    pub async fn enter(&self) -> Entered {
        Entered(self.joining.clone().read_owned().await)
    }

    /// Applies what a plugin wants of containers that exist, and answers what failed.
    pub(crate) async fn apply(
        &self,
        updates: Vec<ContainerUpdate>,
        evict: Vec<ContainerEviction>,
    ) -> Vec<ContainerUpdate> {
        let mut failed = Vec::new();
        let Ok(domain) = self.domain() else { return updates };
        for eviction in evict {
            tracing::info!(container = eviction.container_id, reason = eviction.reason, "an NRI plugin evicts");
            if let Err(error) = domain.evict(&eviction.container_id, &eviction.reason).await {
                tracing::warn!(container = eviction.container_id, error = error.chain(), "an NRI eviction failed");
            }
        }
        for update in updates {
            let Some(limits) = update.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else { continue };
            if let Err(error) = domain.update(&update.container_id, limits).await {
                tracing::warn!(container = update.container_id, error = error.chain(), "an NRI update failed");
                if !update.ignore_failure {
                    failed.push(update);
                }
            }
        }
        failed
    }

    /// Adds a plugin, and answers what it is to be told: from now on it is told of everything else as it happens.
    pub(crate) async fn admit(&self, plugin: &Arc<Peer>) -> Result<(Vec<PodSandbox>, Vec<Container>)> {
        let _alone = self.joining.write().await;
        let listed = self.domain()?.list().await?;
        self.change(|plugins| {
            plugins.push(plugin.clone());
            plugins.sort_by(|one, other| (&one.index, &one.name).cmp(&(&other.index, &other.name)));
        });
        Ok(listed)
    }

    /// Removes a plugin that is gone.
    pub(crate) fn dismiss(&self, plugin: &Arc<Peer>) {
        let ready = *plugin.phase.borrow();
        debug_assert_eq!(ready, Phase::Closed);
        self.change(|plugins| {
            let before = plugins.len();
            plugins.retain(|have| !Arc::ptr_eq(have, plugin));
            if plugins.len() < before {
                tracing::info!(plugin = plugin.full_name, "an NRI plugin is gone");
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Peer>>)) {
        {
            let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
            change(Arc::make_mut(&mut plugins));
        }
        self.count();
    }

    fn count(&self) {
        metrics::active(self.plugins().len() + usize::from(self.validator.is_some()));
    }

    fn plugins(&self) -> Arc<Vec<Arc<Peer>>> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn domain(&self) -> Result<Arc<dyn Domain>> {
        let domain = self.domain.lock().unwrap_or_else(PoisonError::into_inner).clone();
        domain.ok_or_else(|| Error::unavailable("the daemon is stopping"))
    }
}
