//! The sandbox store.

use std::sync::Arc;

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    sandbox::{Sandbox, StoreBackend},
};
use kevel_model::{Error, Filters, Result};

use crate::{
    check,
    core::{Core, Draft, missing},
    gc::label::let_go,
    shelf::key,
    state::Sandboxes,
};

pub(crate) struct Store {
    pub(crate) core: Arc<Core>,
}

#[async_trait]
impl StoreBackend for Store {
    async fn get(&self, scope: &Scope, id: &str) -> Result<Sandbox> {
        let state = self.core.state();
        let sandbox = state.sandboxes.get(&key(&scope.namespace, &[id]));
        sandbox.map(|sandbox| Sandbox::clone(sandbox)).ok_or_else(|| missing::<Sandboxes>(id))
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Sandbox>> {
        let state = self.core.state();
        let sandboxes = state.sandboxes.under(scope.namespace.as_str());
        let matching = sandboxes.filter(|(_, sandbox)| filters.matches(&***sandbox));
        Ok(matching.map(|(_, sandbox)| Sandbox::clone(sandbox)).collect())
    }

    async fn create(&self, scope: &Scope, mut sandbox: Sandbox) -> Result<Sandbox> {
        check(&sandbox)?;
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&sandbox.id]);
                draft.vacant::<Sandboxes>(&key, &sandbox.id)?;
                sandbox.created_at = draft.now;
                sandbox.updated_at = draft.now;
                draft.put::<Sandboxes>(&key, sandbox.clone());
                Ok(sandbox)
            })
            .await
    }

    async fn update(&self, scope: &Scope, sandbox: Sandbox, fieldpaths: &[String]) -> Result<Sandbox> {
        check::identifier("sandbox id", &sandbox.id)?;
        let fieldpaths = match fieldpaths {
            [] => ["labels", "extensions", "runtime", "spec"].map(str::to_owned).to_vec(),
            some => some.to_vec(),
        };
        self.core.change(&scope.namespace, move |draft| update(draft, sandbox, &fieldpaths)).await
    }

    async fn delete(&self, scope: &Scope, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&id]);
                draft.get::<Sandboxes>(&key, &id)?;
                draft.remove::<Sandboxes>(&key);
                Ok(())
            })
            .await
    }
}

fn check(sandbox: &Sandbox) -> Result<()> {
    check::identifier("sandbox id", &sandbox.id)?;
    check::labels(&sandbox.labels)?;
    if sandbox.extensions.keys().any(String::is_empty) {
        return Err(Error::invalid_argument(format!("sandbox {:?}: extension key must not be empty", sandbox.id)));
    }
    Ok(())
}

fn update(draft: &mut Draft<'_, '_>, new: Sandbox, fieldpaths: &[String]) -> Result<Sandbox> {
    let key = draft.key(&[&new.id]);
    let old = draft.get::<Sandboxes>(&key, &new.id)?;
    let mut sandbox = Sandbox::clone(&old);
    for path in fieldpaths {
        match path.split_once('.') {
            None if path == "labels" => sandbox.labels.clone_from(&new.labels),
            None if path == "extensions" => sandbox.extensions.clone_from(&new.extensions),
            None if path == "runtime" => sandbox.runtime.clone_from(&new.runtime),
            None if path == "spec" => sandbox.spec.clone_from(&new.spec),
            Some(("labels", key)) => check::entry(&mut sandbox.labels, &new.labels, key),
            Some(("extensions", key)) => check::entry(&mut sandbox.extensions, &new.extensions, key),
            _ => return Err(check::immutable("sandbox", &new.id, path)),
        }
    }
    check(&sandbox)?;
    sandbox.updated_at = draft.now;
    draft.put::<Sandboxes>(&key, sandbox.clone());
    if let_go(&old.labels, &sandbox.labels) {
        draft.dirty();
    }
    Ok(sandbox)
}
