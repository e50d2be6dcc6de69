//! What every RPC works with: handles to the core services, settings, the index, and what lives with containers.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kevel_contract::{
    Scope,
    container::ContainerStore,
    event::EventExchange,
    introspection::Introspection,
    metric::MetricRegistry,
    sandbox::{SandboxController, SandboxStore},
    snapshot::Snapshotter,
    task::Tasks,
};
use kevel_cri_logs::{Io, Stats};
use kevel_cri_network::Network;
use kevel_cri_nri::Nri;
use kevel_cri_spec::{Node, Policy};
use kevel_cri_streaming::Endpoint;
use kevel_model::{Error, Namespace, Result};
use kevel_proto::runtime::v1::{ContainerStats, PodSandboxStats};
use tokio::sync::watch;

use crate::{
    checkpoint::{Criu, Storage},
    config::{Handler, Handlers, RuntimeConfig},
    counters::Counters,
    files::Files,
    image::Images,
    index::Index,
    live::add,
    lock::Locks,
    metric::Recent,
    node,
    operation::Operations,
    reach::Reach,
    rootfs::Source,
    runtime::Features,
    sandbox::Unfinished,
    selinux::Selinux,
    usage::{Meter, Shared},
};

/// The longest that a call to a core service may take while a pod or a container is made or ended. Shims have shorter
/// deadlines of their own; this one is for when everything else fails.
pub(crate) const CALL: Duration = Duration::from_secs(120);

/// What the CRI runs pods with: configuration, handlers, and facts of the node.
#[derive(Debug)]
pub struct Settings {
    pub(crate) config: RuntimeConfig,
    handlers: watch::Sender<Arc<Handlers>>,
    pub(crate) node: Node,
    pub(crate) policy: Policy,
    pub(crate) files: Files,
    pub(crate) selinux: Selinux,
    /// Whether the kernel has them.
    pub(crate) volatile_overlays: bool,
    /// The longest that one step of the undo of a failed operation may take.
    pub(crate) defer_cleanup: Duration,
    /// How often CPU time is looked at.
    pub(crate) stats_period: Duration,
}

impl Settings {
    /// Reads what the configuration names and looks at the node. Blocks. `root` and `state` are the CRI's own
    /// directories.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn new(config: RuntimeConfig, root: PathBuf, state: PathBuf) -> Result<Self> {
        config.check()?;
        let selinux = match (config.enable_selinux, node::selinux()) {
            (true, true) => {
                let most = crate::selinux::CATEGORIES;
                let range = Some(config.selinux_category_range).filter(|range| *range > 0).unwrap_or(most);
                Selinux::new(crate::selinux::Policy::read(), range)
            }
            (true, false) => {
                tracing::warn!("enable_selinux: the kernel has no SELinux; processes get no labels");
                Selinux::default() // or every container would fail to start
            }
            (false, _) => Selinux::default(),
        };
        let handlers = watch::Sender::new(Arc::new(Handlers::new(&config.containerd)?));
        let stats_period = config.stats_period()?;
        let node = node::look(config.disable_apparmor);
        let policy = Policy {
            namespace: Namespace::k8s().as_str().to_owned(),
            restrict_oom_score_adj: config.restrict_oom_score_adj || !node::may_lower_oom_score(&node),
            disable_proc_mount: config.disable_proc_mount,
            disable_hugetlb_controller: config.disable_hugetlb_controller,
            tolerate_missing_hugetlb_controller: config.tolerate_missing_hugetlb_controller,
            device_ownership_from_security_context: config.device_ownership_from_security_context,
            enable_unprivileged_ports: config.enable_unprivileged_ports,
            enable_unprivileged_icmp: config.enable_unprivileged_icmp,
        };
        let defer_cleanup = Duration::from_secs(60);
        let volatile_overlays = crate::volatile::is_offered(&rustix::system::uname().release().to_string_lossy());
        let files = Files::new(root, state);
        Ok(Self { config, handlers, selinux, node, policy, files, volatile_overlays, stats_period, defer_cleanup })
    }

    /// With another limit for each step of an undo.
    pub fn with_defer_cleanup(self, limit: Duration) -> Self {
        Self { defer_cleanup: limit, ..self }
    }

    /// The handler of that name; the default one for the empty name.
    pub(crate) fn handler(&self, name: &str) -> Result<Arc<Handler>> {
        self.handlers().get(name)
    }

    /// The handlers as they are now.
    pub(crate) fn handlers(&self) -> Arc<Handlers> {
        self.handlers.borrow().clone()
    }

    /// The handlers, and when they change.
    pub(crate) fn follow_handlers(&self) -> watch::Receiver<Arc<Handlers>> {
        self.handlers.subscribe()
    }

    /// Takes on other handlers, for whoever asks from now on.
    pub(crate) fn set_handlers(&self, handlers: Handlers) {
        self.handlers.send_replace(Arc::new(handlers));
    }
}

/// What a server is made of.
pub struct Parts {
    /// Container records.
    pub containers: ContainerStore,
    /// Sandbox records.
    pub sandboxes: SandboxStore,
    /// Tasks.
    pub tasks: Tasks,
    /// Snapshotters, namespaced, by name.
    pub snapshotters: Arc<BTreeMap<String, Snapshotter>>,
    /// Events of the core.
    pub events: EventExchange,
    /// What the daemon and shims say of themselves.
    pub introspection: Introspection,
    /// Sandbox controllers by name, `podsandbox` among them.
    pub controllers: BTreeMap<String, SandboxController>,
    /// Images.
    pub images: Arc<Images>,
    /// How pods are run.
    pub settings: Arc<Settings>,
    /// Where clients come for streams.
    pub streaming: Endpoint,
    /// Where the server's metrics go.
    pub metrics: MetricRegistry,
    /// Who is told and asked of pods and containers.
    pub nri: Arc<Nri>,
    /// What packs and unpacks checkpoints, if there is a diff service.
    pub storage: Option<Storage>,
    /// Where CRIU is looked for.
    pub search_path: Vec<PathBuf>,
}

/// The CRI server; one for the daemon's life.
pub struct Server {
    pub(crate) containers: ContainerStore,
    pub(crate) sandboxes: SandboxStore,
    pub(crate) tasks: Tasks,
    pub(crate) snapshotters: Arc<BTreeMap<String, Snapshotter>>,
    pub(crate) events: EventExchange,
    pub(crate) introspection: Introspection,
    pub(crate) controllers: BTreeMap<String, SandboxController>,
    pub(crate) images: Arc<Images>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) streaming: Endpoint,
    pub(crate) nri: Arc<Nri>,
    pub(crate) scope: Scope,
    pub(crate) index: Index,
    pub(crate) operations: Operations,
    pub(crate) pods: Locks,
    pub(crate) locks: Locks,
    pub(crate) meter: Meter,
    pub(crate) container_readings: Shared<Vec<ContainerStats>>,
    pub(crate) pod_readings: Shared<Vec<PodSandboxStats>>,
    pub(crate) metrics_recent: Recent,
    pub(crate) features: Features,
    pub(crate) reach: Reach,
    pub(crate) unfinished: Unfinished,
    pub(crate) counters: Counters,
    pub(crate) storage: Option<Storage>,
    pub(crate) criu: Criu,
    networks: BTreeMap<String, Arc<Network>>,
    lives: Mutex<HashMap<String, Arc<Life>>>,
    /// What the logs of containers that are gone took.
    buried: Mutex<Stats>,
}

/// What lives with a container's process.
pub(crate) struct Life {
    /// Its streams.
    pub(crate) io: Option<Io>,
    /// True once its end is on record.
    pub(crate) ended: watch::Sender<bool>,
}

impl Server {
    /// A server that knows no pods yet; see [`Server::recover`].
    ///
    /// # Errors
    /// When the name of a metric is taken: there is one server for a registry.
    pub fn new(parts: Parts) -> Result<Arc<Self>> {
        let networks = networks(&parts.settings);
        let counters = Counters::new(&parts.metrics)?;
        let server = Arc::new(Self {
            containers: parts.containers,
            sandboxes: parts.sandboxes,
            tasks: parts.tasks,
            snapshotters: parts.snapshotters,
            events: parts.events,
            introspection: parts.introspection,
            controllers: parts.controllers,
            images: parts.images,
            settings: parts.settings,
            streaming: parts.streaming,
            nri: parts.nri,
            storage: parts.storage,
            criu: Criu::new(parts.search_path),
            scope: Scope::new(Namespace::k8s()),
            index: Index::default(),
            operations: Operations::measured(counters.operations.clone()),
            counters,
            pods: Locks::default(),
            locks: Locks::default(),
            meter: Meter::default(),
            container_readings: Shared::default(),
            pod_readings: Shared::default(),
            metrics_recent: Recent::default(),
            features: Features::default(),
            reach: Reach::default(),
            unfinished: Unfinished::default(),
            networks,
            lives: Mutex::default(),
            buried: Mutex::default(),
        });
        server.expose(&parts.metrics)?;
        Ok(server)
    }

    /// Starts NRI's plugins on what is there. Call it once, after [`Server::recover`].
    ///
    /// # Errors
    /// When plugins can't be looked for or their socket can't be opened.
    pub async fn start_plugins(self: &Arc<Self>) -> Result<()> {
        let node = Arc::new(crate::nri::Node(self.clone()));
        self.nri.start(node, self.stages()).await
    }

    /// Follows the networks' configuration until the daemon ends.
    pub fn watch_networks(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let watch = |network: &Arc<Network>| {
            let network = network.clone();
            tokio::spawn(async move {
                loop {
                    let Err(error) = network.watch().await;
                    tracing::warn!(error = error.chain(), "watching network configurations; trying again");
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            })
        };
        self.networks.values().map(watch).collect()
    }

    /// The networks of a handler's pods.
    pub(crate) fn network(&self, handler: &str) -> Result<&Arc<Network>> {
        self.networks.get(handler).or_else(|| self.networks.get("")).ok_or_else(|| Error::internal("no network"))
    }

    /// The networks of handlers that have none of their own.
    pub(crate) fn default_network(&self) -> Result<&Arc<Network>> {
        self.network("")
    }

    /// The networks of handlers that have their own, by handler.
    pub(crate) fn own_networks(&self) -> impl Iterator<Item = (&String, &Arc<Network>)> {
        self.networks.iter().filter(|(handler, _)| !handler.is_empty())
    }

    /// Every network, the general one first.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// The runtime of a handler, by which timers are told apart.
    pub(crate) fn runtime_of(&self, handler: &str) -> String {
        self.settings.handler(handler).map(|handler| handler.runtime.name.clone()).unwrap_or_default()
    }

    /// The controller of that name.
    pub(crate) fn controller(&self, name: &str) -> Result<&SandboxController> {
        let missing = || Error::failed_precondition(format!("there is no sandbox controller {name:?}"));
        self.controllers.get(name).ok_or_else(missing)
    }

    /// The snapshotter of that name.
    pub(crate) fn snapshotter(&self, name: &str) -> Result<&Snapshotter> {
        let missing = || Error::failed_precondition(format!("there is no snapshotter {name:?}"));
        self.snapshotters.get(name).ok_or_else(missing)
    }

    /// Where a handler's containers have their root file systems.
    pub(crate) fn snapshotter_of(&self, handler: &Handler) -> String {
        self.images.snapshotter_of(&handler.name, &handler.config.snapshotter)
    }

    /// Root file systems of that snapshotter.
    pub(crate) fn rootfs<'a>(&'a self, snapshotter: &'a str) -> Result<Source<'a>> {
        Ok(Source {
            snapshotter: self.snapshotter(snapshotter)?,
            name: snapshotter,
            introspection: &self.introspection,
            scope: &self.scope,
            temporary: self.settings.files.temporary(),
        })
    }

    pub(crate) fn live(&self, id: &str, life: Life) -> Arc<Life> {
        let life = Arc::new(life);
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), life.clone());
        life
    }

    pub(crate) fn life(&self, id: &str) -> Option<Arc<Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn bury(&self, id: &str) -> Option<Arc<Life>> {
        let life = self.lives.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(io) = life.as_ref().and_then(|life| life.io.as_ref()) {
            add(&mut self.buried.lock().unwrap_or_else(PoisonError::into_inner), io.log().stats());
        }
        life
    }

    /// What the logs of all containers took since the daemon started.
    pub(crate) fn log_stats(&self) -> Stats {
        let mut sum = *self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        for io in lives.values().filter_map(|life| life.io.as_ref()) {
            add(&mut sum, io.log().stats());
        }
        sum
    }

    /// A call with the last of all deadlines.
    pub(crate) async fn bounded<T>(&self, doing: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(Error::deadline_exceeded(format!("{doing}: not done within {CALL:?}")));
        tokio::time::timeout(CALL, call).await.unwrap_or_else(late)
    }
}

/// The general network under the empty name, and one for each handler with a configuration of its own.
fn networks(settings: &Settings) -> BTreeMap<String, Arc<Network>> {
    let cni = &settings.config.cni;
    let general = Arc::new(Network::new(cni.network(None, None)));
    let mut networks = BTreeMap::from([(String::new(), general.clone())]);
    for (name, handler) in settings.handlers().iter() {
        if !handler.config.cni_conf_dir.is_empty() {
            let config = cni.network(Some(&handler.config.cni_conf_dir), handler.config.cni_max_conf_num);
            networks.insert(name.clone(), Arc::new(general.beside(config)));
        }
    }
    networks
}
