//! The container store.

use std::sync::Arc;

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    container::{Backend, Container},
};
use kevel_model::{Error, Filters, Result};

use crate::{
    check,
    core::{Core, Draft, missing},
    event,
    gc::label::let_go,
    shelf::key,
    state::Containers,
};

pub(crate) struct Store {
    pub(crate) core: Arc<Core>,
}

#[async_trait]
impl Backend for Store {
    async fn get(&self, scope: &Scope, id: &str) -> Result<Container> {
        let state = self.core.state();
        let container = state.containers.get(&key(&scope.namespace, &[id]));
        container.map(|container| Container::clone(container)).ok_or_else(|| missing::<Containers>(id))
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Container>> {
        let state = self.core.state();
        let containers = state.containers.under(scope.namespace.as_str());
        let matching = containers.filter(|(_, container)| filters.matches(&***container));
        Ok(matching.map(|(_, container)| Container::clone(container)).collect())
    }

    async fn create(&self, scope: &Scope, mut container: Container) -> Result<Container> {
        check(&container)?;
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&container.id]);
                draft.vacant::<Containers>(&key, &container.id)?;
                container.created_at = draft.now;
                container.updated_at = draft.now;
                draft.put::<Containers>(&key, container.clone());
                draft.event("/containers/create", event::container_create(&container));
                Ok(container)
            })
            .await
    }

    async fn update(&self, scope: &Scope, container: Container, fieldpaths: &[String]) -> Result<Container> {
        check::identifier("container id", &container.id)?;
        let fieldpaths = fieldpaths.to_vec();
        self.core.change(&scope.namespace, move |draft| update(draft, container, &fieldpaths)).await
    }

    async fn delete(&self, scope: &Scope, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&id]);
                draft.get::<Containers>(&key, &id)?;
                draft.remove::<Containers>(&key);
                draft.event("/containers/delete", event::container_delete(&id));
                Ok(())
            })
            .await
    }
}

fn check(container: &Container) -> Result<()> {
    let id = &container.id;
    check::identifier("container id", id)?;
    check::labels(&container.labels)?;
    if container.extensions.keys().any(String::is_empty) {
        return Err(Error::invalid_argument(format!("container {id:?}: extension key must not be empty")));
    }
    if container.runtime.name.is_empty() {
        return Err(Error::invalid_argument(format!("container {id:?}: runtime name must not be empty")));
    }
    if container.spec.is_none() {
        return Err(Error::invalid_argument(format!("container {id:?}: spec must be set")));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(Error::invalid_argument(format!("container {id:?}: snapshotter must be set with a snapshot key")));
    }
    Ok(())
}

fn update(draft: &mut Draft<'_, '_>, new: Container, fieldpaths: &[String]) -> Result<Container> {
    let key = draft.key(&[&new.id]);
    let old = draft.get::<Containers>(&key, &new.id)?;
    let container = if fieldpaths.is_empty() { replaced(&old, new)? } else { changed(&old, new, fieldpaths)? };
    check(&container)?;
    let container = Container { updated_at: draft.now, ..container };
    draft.put::<Containers>(&key, container.clone());
    let snapshot = |of: &Container| (of.snapshotter.clone(), of.snapshot_key.clone());
    if let_go(&old.labels, &container.labels) || snapshot(&old) != snapshot(&container) {
        draft.dirty();
    }
    draft.event("/containers/update", event::container_update(&container));
    Ok(container)
}

/// Everything that may change comes from `new`; what may not must be equal.
fn replaced(old: &Container, new: Container) -> Result<Container> {
    let same = |equal: bool, field: &str| match equal {
        true => Ok(()),
        false => Err(Error::invalid_argument(format!("container {:?}: {field} is immutable", old.id))),
    };
    same(old.snapshotter == new.snapshotter, "snapshotter")?;
    same(old.runtime.name == new.runtime.name, "runtime name")?;
    Ok(Container { created_at: old.created_at, sandbox: old.sandbox.clone(), ..new })
}

fn changed(old: &Container, new: Container, fieldpaths: &[String]) -> Result<Container> {
    let mut container = old.clone();
    for path in fieldpaths {
        match path.split_once('.') {
            None if path == "labels" => container.labels.clone_from(&new.labels),
            None if path == "spec" => container.spec.clone_from(&new.spec),
            None if path == "extensions" => container.extensions.clone_from(&new.extensions),
            None if path == "image" => container.image.clone_from(&new.image),
            None if path == "snapshotkey" => container.snapshot_key.clone_from(&new.snapshot_key),
            None if path == "snapshotter" => container.snapshotter.clone_from(&new.snapshotter),
            Some(("labels", key)) => check::entry(&mut container.labels, &new.labels, key),
            Some(("extensions", key)) => check::entry(&mut container.extensions, &new.extensions, key),
            Some(("runtime", "options")) => container.runtime.options.clone_from(&new.runtime.options),
            _ => return Err(check::immutable("container", &old.id, path)),
        }
    }
    Ok(container)
}
