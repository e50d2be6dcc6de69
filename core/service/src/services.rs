//! The service plugins whose work is a choice: a store out of the metadata store, one differ after the other.

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    call::Target,
    container::ContainerService,
    content::ContentService,
    diff::{Apply, Backend, Compare, DiffService, Differ, Differs},
    image::ImageService,
    metadata::Metadata,
    mounts::MountManagers,
    namespace::NamespaceService,
    sandbox::SandboxStores,
    snapshot::SnapshotService,
    stream::{StreamManager, Streams},
};
use kevel_model::{Descriptor, Error, Mount, Result};
use kevel_plugin::{All, InitContext, InitError, Kind, One, Plugin, deps};
use serde::{Deserialize, Serialize};

deps! {
    /// The metadata store.
    pub(crate) struct StoreDeps { metadata: One<Metadata> }
}

/// Declares a plugin that picks one store out of the metadata store.
macro_rules! pick {
    ($(#[$doc:meta])* $plugin:ident of $kind:ty as $id:literal: $store:ident) => {
        $(#[$doc])*
        pub(crate) struct $plugin;

        impl Plugin for $plugin {
            type Kind = $kind;
            const ID: &'static str = $id;
            type Config = ();
            type Deps = StoreDeps;

            async fn init(
                _: InitContext,
                (): (),
                deps: StoreDeps,
            ) -> Result<<$kind as Kind>::Handle, InitError> {
                Ok(deps.metadata.0.$store)
            }
        }
    };
}

pick! { ContainersService of ContainerService as "containers-service": containers }
pick! { ContentsService of ContentService as "content-service": content }
pick! { ImagesService of ImageService as "images-service": images }
pick! { NamespacesService of NamespaceService as "namespaces-service": namespaces }
pick! { SnapshotsService of SnapshotService as "snapshots-service": snapshotters }
pick! { MountManager of MountManagers as "bolt": mounts }
pick! { SandboxesStore of SandboxStores as "local": sandboxes }

/// The stream manager: `io.containerd.streaming.v1.manager`.
pub(crate) struct StreamsPlugin;

impl Plugin for StreamsPlugin {
    type Kind = Streams;
    const ID: &'static str = "manager";
    type Config = ();
    type Deps = ();

    async fn init(_: InitContext, (): (), (): ()) -> Result<StreamManager, InitError> {
        Ok(StreamManager::new(Target::local("streams"), crate::streaming::Manager::default()))
    }
}

/// Configuration of the diff service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DiffConfig {
    /// Differs to ask, in order; the next is asked when one does not know the media type or mounts.
    pub default: Vec<String>,
    /// Flush the file system after every layer, whoever applies it.
    pub sync_fs: bool,
}

impl Default for DiffConfig {
    fn default() -> Self {
        Self { default: vec!["walking".to_owned()], sync_fs: false }
    }
}

deps! {
    /// Every differ.
    pub(crate) struct DiffDeps { differs: All<Differs> }
}

/// The diff service: `io.containerd.service.v1.diff-service`.
pub(crate) struct DiffsService;

impl Plugin for DiffsService {
    type Kind = DiffService;
    const ID: &'static str = "diff-service";
    type Config = DiffConfig;
    type Deps = DiffDeps;

    async fn init(cx: InitContext, config: DiffConfig, deps: DiffDeps) -> Result<Differ, InitError> {
        let pick = |name: &String| {
            let missing = || InitError::Config {
                uri: cx.uri.clone(),
                message: format!("default: differ {name:?} did not start or does not exist"),
            };
            deps.differs.0.get(name).cloned().ok_or_else(missing)
        };
        let differs = config.default.iter().map(pick).collect::<Result<Vec<_>, _>>()?;
        if differs.is_empty() {
            return Err(InitError::Config { uri: cx.uri, message: "default: names no differ".to_owned() });
        }
        Ok(Differ::new(Target::local("diff service"), InTurn { differs, sync_fs: config.sync_fs }))
    }
}

/// Asks differs in turn, until one does not say "unimplemented".
struct InTurn {
    differs: Vec<Differ>,
    sync_fs: bool,
}

#[async_trait]
impl Backend for InTurn {
    async fn apply(&self, scope: &Scope, layer: &Descriptor, mounts: &[Mount], mut apply: Apply) -> Result<Descriptor> {
        apply.sync_fs |= self.sync_fs;
        for differ in &self.differs {
            match differ.apply(scope, layer, mounts, apply.clone()).await {
                Err(error) if error.is_unimplemented() => tracing::debug!(error = error.chain(), "differ passed"),
                answer => return answer,
            }
        }
        Err(Error::unimplemented(format!("no differ applies layers of type {:?} to these mounts", layer.media_type)))
    }

    async fn compare(&self, scope: &Scope, lower: &[Mount], upper: &[Mount], compare: Compare) -> Result<Descriptor> {
        for differ in &self.differs {
            match differ.compare(scope, lower, upper, compare.clone()).await {
                Err(error) if error.is_unimplemented() => tracing::debug!(error = error.chain(), "differ passed"),
                answer => return answer,
            }
        }
        Err(Error::unimplemented(format!("no differ makes layers of type {:?} of these mounts", compare.media_type)))
    }
}
