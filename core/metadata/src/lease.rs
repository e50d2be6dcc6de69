//! The lease manager.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    lease::{Backend, Lease, Resource},
    metadata::GarbageCollector,
};
use kevel_model::{Digest, Error, Filters, Labels, Result};

use crate::{
    check,
    core::{Core, missing},
    mounts,
    shelf::key,
    state::{Leases, Resources},
};

pub(crate) struct Store {
    pub(crate) core: Arc<Core>,
    pub(crate) garbage: GarbageCollector,
}

#[async_trait]
impl Backend for Store {
    async fn create(&self, scope: &Scope, id: &str, labels: Labels) -> Result<Lease> {
        let id = if id.is_empty() { generated() } else { id.to_owned() };
        check::name("lease id", &id)?;
        check::labels(&labels)?;
        if let Some(text) = labels.get(kevel_contract::lease::LABEL_EXPIRE) {
            let valid = text.parse::<prost_types::Timestamp>();
            valid.map_err(|_| Error::invalid_argument(format!("lease {id:?}: {text:?} is not an RFC 3339 time")))?;
        }
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&id]);
                draft.vacant::<Leases>(&key, &id)?;
                let lease = Lease { id, created_at: draft.now, labels };
                draft.put::<Leases>(&key, lease.clone());
                Ok(lease)
            })
            .await
    }

    async fn delete(&self, scope: &Scope, id: &str, sync: bool) -> Result<()> {
        let id = id.to_owned();
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&id]);
                draft.get::<Leases>(&key, &id)?;
                let resources: Vec<_> = draft.state.resources.under(&key).map(|(key, _)| key.to_owned()).collect();
                for resource in resources {
                    draft.remove::<Resources>(&resource);
                }
                draft.remove::<Leases>(&key);
                Ok(())
            })
            .await?;
        if sync {
            self.garbage.collect().await?;
        }
        Ok(())
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Lease>> {
        let state = self.core.state();
        let leases = state.leases.under(scope.namespace.as_str());
        Ok(leases.filter(|(_, lease)| filters.matches(&***lease)).map(|(_, lease)| Lease::clone(lease)).collect())
    }

    async fn add(&self, scope: &Scope, id: &str, resource: Resource) -> Result<()> {
        check_resource(&resource)?;
        let id = id.to_owned();
        self.core
            .change(&scope.namespace, move |draft| {
                draft.get::<Leases>(&draft.key(&[&id]), &id)?;
                let key = draft.key(&[&id, &resource.kind, &resource.id]);
                draft.put::<Resources>(&key, resource);
                Ok(())
            })
            .await
    }

    async fn remove(&self, scope: &Scope, id: &str, resource: Resource) -> Result<()> {
        check_resource(&resource)?;
        let id = id.to_owned();
        self.core
            .change(&scope.namespace, move |draft| {
                draft.get::<Leases>(&draft.key(&[&id]), &id)?;
                let key = draft.key(&[&id, &resource.kind, &resource.id]);
                if draft.state.resources.get(&key).is_some() {
                    draft.remove::<Resources>(&key);
                }
                Ok(())
            })
            .await
    }

    async fn resources(&self, scope: &Scope, id: &str) -> Result<Vec<Resource>> {
        let state = self.core.state();
        let key = key(&scope.namespace, &[id]);
        state.leases.get(&key).ok_or_else(|| missing::<Leases>(id))?;
        Ok(state.resources.under(&key).map(|(_, resource)| Resource::clone(resource)).collect())
    }
}

/// An id for a lease that came without: time and a counter, unique on this node.
fn generated() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:04x}", now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn check_resource(resource: &Resource) -> Result<()> {
    check::name("lease resource id", &resource.id)?;
    match (resource.kind.as_str(), resource.kind.split_once('/')) {
        ("content", _) => resource.id.parse::<Digest>().map(drop).map_err(Error::from),
        ("ingests" | "images" | mounts::RESOURCE, _) => Ok(()),
        (_, Some(("snapshots", snapshotter))) => check::name("snapshotter of a lease resource", snapshotter),
        _ => Err(Error::unimplemented(format!("lease resources of type {:?} are not supported", resource.kind))),
    }
}
