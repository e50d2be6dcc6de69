//! The plugin `io.containerd.transfer.v1.local`.

use std::{
    any::TypeId,
    collections::{BTreeMap, BTreeSet},
};

use kevel_contract::{
    call::Target,
    metadata::Metadata,
    snapshot::{CAPABILITY_REBASE, Snapshotters},
    transfer::{Transfer, TransferService},
    verifier::ImageVerifiers,
};
use kevel_diff::StreamProcessors;
use kevel_plugin::{All, Dep, Graph, InitContext, InitError, Kind as _, Maybe, One, Requirement, deps};

use crate::{Config, Parts, Service, Snapshotting};

/// A snapshotter that exports this as `true` wants to know which layer and image a snapshot is for.
const ANNOTATES: &str = "enable_remote_snapshot_annotations";

/// What snapshotters declare: the names of those that can rebase, and of those that want annotations.
pub struct Declarations {
    rebase: BTreeSet<String>,
    annotate: BTreeSet<String>,
}

impl Dep for Declarations {
    fn requirement() -> Requirement {
        Requirement { kind: TypeId::of::<Snapshotters>(), type_name: Snapshotters::TYPE, optional: true }
    }

    fn resolve(graph: &Graph) -> Result<Self, InitError> {
        let reports = graph.reports();
        let snapshotters = || reports.iter().filter(|report| report.type_name == Snapshotters::TYPE);
        let can = snapshotters().filter(|report| report.declared.capabilities.iter().any(|c| c == CAPABILITY_REBASE));
        let want = snapshotters().filter(|report| report.declared.exports.get(ANNOTATES).is_some_and(|v| v == "true"));
        Ok(Self {
            rebase: can.map(|report| report.id.clone()).collect(),
            annotate: want.map(|report| report.id.clone()).collect(),
        })
    }
}

deps! {
    /// What transfers stand on.
    pub struct Deps {
        stores: One<Metadata>,
        declared: Declarations,
        verifiers: All<ImageVerifiers>,
        processors: Maybe<StreamProcessors>,
    }
}

/// The transfer plugin.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = TransferService;
    const ID: &'static str = "local";
    type Config = Config;
    type Deps = Deps;

    async fn init(cx: InitContext, config: Config, deps: Deps) -> Result<Transfer, InitError> {
        let stores = deps.stores.0;
        let snapshotters: BTreeMap<_, _> = stores
            .snapshotters
            .iter()
            .map(|(name, snapshotter)| {
                let (rebases, annotates) = (deps.declared.rebase.contains(name), deps.declared.annotate.contains(name));
                (name.clone(), Snapshotting { snapshotter: snapshotter.clone(), rebases, annotates })
            })
            .collect();
        let mounts = cx.state.join("mounts");
        let clean = mounts.clone();
        let cleaned = tokio::task::spawn_blocking(move || kevel_mount::clean_temp_mounts(&clean)).await;
        cleaned.map_err(InitError::failed)?.map_err(InitError::failed)?;
        let (verifiers, processors) = (deps.verifiers.0, deps.processors.0.unwrap_or_default());
        let service = Service::new(config, Parts { stores, snapshotters, verifiers, processors, mounts });
        service.recover().await.map_err(InitError::failed)?;
        Ok(Transfer::new(Target::local("transfer service"), service))
    }
}
