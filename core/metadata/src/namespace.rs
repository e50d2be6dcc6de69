//! The namespace store.

use std::sync::Arc;

use async_trait::async_trait;
use kevel_contract::namespace::Backend;
use kevel_model::{Error, Labels, Namespace, Result, apply_label_fieldpaths};

use crate::{
    check,
    core::{Core, missing},
    event,
    state::Namespaces,
};

pub(crate) struct Store {
    pub(crate) core: Arc<Core>,
}

#[async_trait]
impl Backend for Store {
    async fn get(&self, name: &Namespace) -> Result<Labels> {
        let state = self.core.state();
        let labels = state.namespaces.get(name.as_str()).map(|labels| Labels::clone(labels));
        labels.ok_or_else(|| missing::<Namespaces>(name.as_str()))
    }

    async fn list(&self) -> Result<Vec<(Namespace, Labels)>> {
        let state = self.core.state();
        state.namespaces.all().map(|(name, labels)| Ok((Namespace::new(name)?, Labels::clone(labels)))).collect()
    }

    async fn create(&self, name: &Namespace, labels: Labels) -> Result<()> {
        check::labels(&labels)?;
        self.core
            .change(name, move |draft| {
                let name = draft.namespace.clone();
                draft.vacant::<Namespaces>(name.as_str(), name.as_str())?;
                draft.event("/namespaces/create", event::namespace_create(&name, &labels));
                draft.put::<Namespaces>(name.as_str(), labels);
                Ok(())
            })
            .await
    }

    async fn update(&self, name: &Namespace, labels: Labels, fieldpaths: &[String]) -> Result<Labels> {
        let fieldpaths = fieldpaths.to_vec();
        self.core
            .change(name, move |draft| {
                let name = draft.namespace.clone();
                let mut current = Labels::clone(&*draft.get::<Namespaces>(name.as_str(), name.as_str())?);
                apply_label_fieldpaths(&mut current, &labels, &fieldpaths)?;
                check::labels(&current)?;
                draft.put::<Namespaces>(name.as_str(), current.clone());
                draft.event("/namespaces/update", event::namespace_update(&name, &current));
                Ok(current)
            })
            .await
    }

    async fn delete(&self, name: &Namespace) -> Result<()> {
        self.core
            .change(name, |draft| {
                let name = draft.namespace.clone();
                draft.get::<Namespaces>(name.as_str(), name.as_str())?;
                let remains = draft.state.remains(&name);
                if !remains.is_empty() {
                    let remains = remains.join(", ");
                    return Err(Error::failed_precondition(format!("namespace {name} is not empty: it has {remains}")));
                }
                draft.remove::<Namespaces>(name.as_str());
                draft.event("/namespaces/delete", event::namespace_delete(&name));
                Ok(())
            })
            .await
    }
}
