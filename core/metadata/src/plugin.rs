//! The plugins `io.containerd.metadata.v1.bolt` (the id is containerd's; the file is ours) and
//! `io.containerd.lease.v1.manager`.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use kevel_contract::{
    call::Target,
    container::ContainerStore,
    content::{ContentStore, Contents},
    event::{EventExchange, Events},
    image::ImageStore,
    lease::{LeaseManager, Leases},
    metadata::{Garbage, GarbageCollector, Metadata, Stores},
    mounts::{MountManager, MountManagers},
    namespace::NamespaceStore,
    sandbox::SandboxStore,
    snapshot::{Snapshotter, Snapshotters},
};
use kevel_database::{Database, Schema};
use kevel_model::{Code, Context as _, Error, Result};
use kevel_mount::Manager;
use kevel_plugin::{All, InitContext, InitError, Kind as _, One, deps};
use serde::{Deserialize, Serialize};

use crate::{
    SharingPolicy, container, content, core::Core, gc::Collector, image, lease, mounts, namespace, sandbox, snapshot,
};

/// Property: how long another process may still hold the database, such as a daemon that is just ending.
const OPEN: &str = "io.containerd.timeout.bolt.open";
/// Between two attempts to open it.
const RETRY: Duration = Duration::from_millis(100);

/// The mount manager's name, as containerd has it.
const MOUNTS: &str = "bolt";

/// The file, in the plugin's root.
const FILE: &str = "meta.redb";

/// The schema of the metadata database.
pub const SCHEMA: Schema = Schema::first("metadata");

/// `[plugins."io.containerd.metadata.v1.bolt"]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Whether namespaces come to know each other's blobs by digest.
    pub content_sharing_policy: SharingPolicy,
    /// Do not wait for the disk: changes are faster, and a power loss may take the whole database.
    pub no_sync: bool,
}

deps! {
    /// What the stores stand on.
    pub struct Deps {
        /// Where the bytes of blobs are.
        content: One<Contents>,
        /// Where file systems are.
        snapshotters: All<Snapshotters>,
        /// Where changes are told.
        events: One<Events>,
    }
}

/// The metadata plugin.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = Metadata;
    const ID: &'static str = "bolt";
    type Config = Config;
    type Deps = Deps;

    async fn init(cx: InitContext, config: Config, deps: Deps) -> Result<Stores, InitError> {
        let path = cx.root.join(FILE);
        cx.export("path", path.display().to_string());
        cx.export("policy", if config.content_sharing_policy == SharingPolicy::Shared { "shared" } else { "isolated" });
        std::fs::create_dir_all(&cx.root)
            .map_err(|error| InitError::Failed(Error::io(format!("making {}", cx.root.display()), error).into()))?;
        let patience = cx.property(OPEN).and_then(kevel_model::duration::parse).unwrap_or_default();
        if config.no_sync {
            tracing::warn!("no_sync: a power loss may take everything that this node knows");
        }
        let database = database(path, config.no_sync, patience).await;
        let database =
            database.context(|| "opening the metadata store").map_err(|error| InitError::Failed(error.into()))?;
        let mounts = manager(&cx);
        let policy = config.content_sharing_policy;
        let open = move || assemble(database, deps.content.0, deps.snapshotters.0, mounts, deps.events.0, policy);
        let opened = tokio::task::spawn_blocking(open).await.map_err(|error| InitError::Failed(error.into()))?;
        let opened = opened.context(|| "opening the metadata store");
        let (stores, mounts) = opened.map_err(|error| InitError::Failed(error.into()))?;
        // Nobody may find a name taken by what ended with the last daemon or the last boot.
        if let Err(error) = mounts.settle().await {
            tracing::warn!(error = %error.chain(), "mounts of an earlier start are left to the collector");
        }
        Ok(stores)
    }
}

/// Where mounts are made ready: below the state, which a reboot loses with them. Images and directories may be made in
/// the daemon's root.
fn manager(cx: &InitContext) -> Manager {
    let targets = cx.state.with_file_name(format!("{}.{MOUNTS}", MountManagers::TYPE)).join("t");
    Manager::new(targets, cx.root.parent().map(Path::to_owned))
}

/// Opens the database; one that another process holds is tried again until `patience` is over.
async fn database(path: std::path::PathBuf, unsynced: bool, patience: Duration) -> Result<Database> {
    let end = tokio::time::Instant::now() + patience;
    loop {
        let file = path.clone();
        let open = move || match unsynced {
            true => Database::open_unsynced(&file, &SCHEMA),
            false => Database::open(&file, &SCHEMA),
        };
        let opened = tokio::task::spawn_blocking(open).await;
        match opened.map_err(|error| Error::internal("opening the database panicked").with_source(error))? {
            Err(error) if error.code() == Code::Unavailable && tokio::time::Instant::now() < end => {
                tracing::info!(path = %path.display(), "waiting for another process to let go of the database");
                tokio::time::sleep(RETRY).await;
            }
            opened => return opened,
        }
    }
}

/// Opens the stores over a database, which needs [`SCHEMA`]. Does blocking I/O.
pub fn open(
    database: Database,
    content: ContentStore,
    snapshotters: BTreeMap<String, Snapshotter>,
    mounts: Manager,
    events: EventExchange,
    policy: SharingPolicy,
) -> Result<Stores> {
    assemble(database, content, snapshotters, mounts, events, policy).map(|(stores, _)| stores)
}

fn assemble(
    database: Database,
    content: ContentStore,
    snapshotters: BTreeMap<String, Snapshotter>,
    mounts: Manager,
    events: EventExchange,
    policy: SharingPolicy,
) -> Result<(Stores, mounts::Store)> {
    let core = Core::open(database, events)?;
    let target = |name: &str| Target::local(name);
    let mounts = mounts::Store::new(Arc::clone(&core), mounts);
    let collector = Collector::new(Arc::clone(&core), content.clone(), snapshotters.clone(), mounts.clone());
    let garbage = GarbageCollector::new(target("garbage collector"), collector);
    let views = snapshotters.into_iter().map(|(name, backend)| {
        let store = snapshot::Store { core: Arc::clone(&core), name: name.clone(), backend };
        (name.clone(), Snapshotter::new(target(&format!("snapshots {name}")), store))
    });
    let stores = Stores {
        snapshotters: Arc::new(views.collect()),
        content: ContentStore::new(
            target("content"),
            content::Store { core: Arc::clone(&core), backend: content, policy },
        ),
        images: ImageStore::new(target("images"), image::Store { core: Arc::clone(&core), garbage: garbage.clone() }),
        containers: ContainerStore::new(target("containers"), container::Store { core: Arc::clone(&core) }),
        sandboxes: SandboxStore::new(target("sandboxes"), sandbox::Store { core: Arc::clone(&core) }),
        leases: LeaseManager::new(target("leases"), lease::Store { core: Arc::clone(&core), garbage: garbage.clone() }),
        namespaces: NamespaceStore::new(target("namespaces"), namespace::Store { core: Arc::clone(&core) }),
        mounts: MountManager::new(target("mounts"), mounts.clone()),
        activity: core.activity(),
        garbage,
    };
    Ok((stores, mounts))
}

deps! {
    /// What the lease manager needs. The collector is there so that deleting a lease can wait for it.
    pub struct LeaseDeps {
        /// Where leases are.
        metadata: One<Metadata>,
        /// What collects when a lease is deleted.
        garbage: One<Garbage>,
    }
}

/// The lease plugin.
pub struct LeasePlugin;

impl kevel_plugin::Plugin for LeasePlugin {
    type Kind = Leases;
    const ID: &'static str = "manager";
    type Config = ();
    type Deps = LeaseDeps;

    async fn init(_: InitContext, (): (), deps: LeaseDeps) -> Result<LeaseManager, InitError> {
        Ok(deps.metadata.leases.clone())
    }
}
