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
};
use kevel_plugin::{Dep, Graph, InitContext, InitError, Kind as _, One, Requirement, deps};

use crate::{Config, Service, Snapshotting};

/// The names of the snapshotters that can rebase.
pub struct Rebasers(BTreeSet<String>);

impl Dep for Rebasers {
    fn requirement() -> Requirement {
        Requirement { kind: TypeId::of::<Snapshotters>(), type_name: Snapshotters::TYPE, optional: true }
    }

    fn resolve(graph: &Graph) -> Result<Self, InitError> {
        let snapshotters = graph.reports().iter().filter(|report| report.type_name == Snapshotters::TYPE);
        let can = snapshotters.filter(|report| report.declared.capabilities.iter().any(|c| c == CAPABILITY_REBASE));
        Ok(Self(can.map(|report| report.id.clone()).collect()))
    }
}

deps! {
    /// What transfers stand on.
    pub struct Deps { stores: One<Metadata>, rebasers: Rebasers }
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
                let rebases = deps.rebasers.0.contains(name);
                (name.clone(), Snapshotting { snapshotter: snapshotter.clone(), rebases })
            })
            .collect();
        let mounts = cx.state.join("mounts");
        let clean = mounts.clone();
        let cleaned = tokio::task::spawn_blocking(move || kevel_mount::clean_temp_mounts(&clean)).await;
        cleaned.map_err(InitError::failed)?.map_err(InitError::failed)?;
        let service = Service::new(config, stores, snapshotters, mounts);
        Ok(Transfer::new(Target::local("transfer service"), service))
    }
}
