//! The mount manager: who has which activation, and what keeps it. The mounts themselves are `kevel-mount`'s, each
//! activation under a number that none had before.
//!
//! An activation is on record before it is made and until it is forgotten, which comes before it is undone. So what a
//! crash leaves is either a record that is not done or mounts without a record, and a reboot leaves records without
//! mounts. All three go when the store opens and with every collection.

pub(crate) mod record;

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    mounts::{Activate, Activation, ActiveMount, Backend},
};
use kevel_model::{Error, Filters, Labels, Namespace, Result, apply_label_fieldpaths};
use kevel_mount::{Activated, Manager, needs_activation};

use self::record::Activated as Record;
use crate::{
    check,
    claim::Claims,
    core::{Core, missing},
    gc::label::let_go,
    shelf::{key, part},
    state::Mounts,
};

/// What leases call an activation.
pub(crate) const RESOURCE: &str = "mounts";

/// The store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    core: Arc<Core>,
    manager: Manager,
    /// Keys of what is being activated or deactivated.
    busy: Claims,
}

#[async_trait]
impl Backend for Store {
    async fn activate(&self, scope: &Scope, name: &str, activate: Activate) -> Result<Activation> {
        check::name("mounts name", name)?;
        check::labels(&activate.labels)?;
        if activate.mounts.is_empty() {
            return Err(Error::invalid_argument("mounts must not be empty"));
        }
        let Activate { mounts, labels, temporary } = activate;
        if !needs_activation(&mounts, temporary) {
            return Err(Error::unimplemented(format!("mounts {name:?} need no manager, mount them as they are")));
        }
        let path = key(&scope.namespace, &[name]);
        let _busy = self.busy.alone(&path).await;
        let number = self.core.number();
        self.begin(scope, name, number, labels).await?;
        let manager = self.manager.clone();
        let made = blocking(move || manager.activate(number, &mounts, temporary)).await;
        let recorded = match made {
            Ok(made) => self.finish(scope, name, made).await,
            Err(error) => Err(error),
        };
        if recorded.is_err() {
            self.forget(scope, name).await.map_or_else(|error| left(name, &error), drop);
            self.undo(number).await.unwrap_or_else(|error| left(name, &error));
        }
        recorded
    }

    async fn deactivate(&self, scope: &Scope, name: &str) -> Result<()> {
        let _busy = self.busy.alone(&key(&scope.namespace, &[name])).await;
        let number = self.forget(scope, name).await?;
        self.undo(number).await
    }

    async fn info(&self, scope: &Scope, name: &str) -> Result<Activation> {
        let state = self.core.state();
        let found = state.mounts.get(&key(&scope.namespace, &[name]));
        found.map(|record| record.activation.clone()).ok_or_else(|| missing::<Mounts>(name))
    }

    async fn update(&self, scope: &Scope, activation: Activation, fieldpaths: &[String]) -> Result<Activation> {
        let fieldpaths = fieldpaths.to_vec();
        let change = self.core.change(&scope.namespace, move |draft| {
            let path = draft.key(&[&activation.name]);
            let old = draft.get::<Mounts>(&path, &activation.name)?;
            let mut record = Record::clone(&old);
            apply_label_fieldpaths(&mut record.activation.labels, &activation.labels, &fieldpaths)?;
            check::labels(&record.activation.labels)?;
            let updated = record.activation.clone();
            draft.put::<Mounts>(&path, record);
            if let_go(&old.activation.labels, &updated.labels) {
                draft.dirty();
            }
            Ok(updated)
        });
        change.await
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Activation>> {
        let state = self.core.state();
        let found = state.mounts.under(scope.namespace.as_str());
        let matching = found.filter(|(_, record)| filters.matches(&record.activation));
        Ok(matching.map(|(_, record)| record.activation.clone()).collect())
    }
}

impl Store {
    pub(crate) fn new(core: Arc<Core>, manager: Manager) -> Self {
        Self { core, manager, busy: Claims::default() }
    }

    /// Puts on record what is about to be made.
    async fn begin(&self, scope: &Scope, name: &str, number: u64, labels: Labels) -> Result<()> {
        let (lease, name) = (scope.clone(), name.to_owned());
        let change = self.core.change(&scope.namespace, move |draft| {
            let path = draft.key(&[&name]);
            draft.vacant::<Mounts>(&path, &name)?;
            draft.lease(&lease, RESOURCE, &name)?;
            let activation = Activation { name, labels, ..Activation::default() };
            draft.put::<Mounts>(&path, Record { number, done: false, activation });
            Ok(())
        });
        change.await
    }

    /// Puts on record what was made.
    async fn finish(&self, scope: &Scope, name: &str, made: Activated) -> Result<Activation> {
        let active: Result<Vec<_>> = made.active.into_iter().map(active).collect();
        let (name, active) = (name.to_owned(), active?);
        let change = self.core.change(&scope.namespace, move |draft| {
            let path = draft.key(&[&name]);
            let mut record = Record::clone(&*draft.get::<Mounts>(&path, &name)?);
            record.activation.active = active;
            record.activation.system = made.system;
            record.done = true;
            let activation = record.activation.clone();
            draft.put::<Mounts>(&path, record);
            Ok(activation)
        });
        change.await
    }

    /// Removes a record and answers its number.
    async fn forget(&self, scope: &Scope, name: &str) -> Result<u64> {
        let (lease, name) = (scope.clone(), name.to_owned());
        let change = self.core.change(&scope.namespace, move |draft| {
            let path = draft.key(&[&name]);
            let number = draft.get::<Mounts>(&path, &name)?.number;
            draft.remove::<Mounts>(&path);
            draft.unlease(&lease, RESOURCE, &name);
            Ok(number)
        });
        change.await
    }

    async fn undo(&self, number: u64) -> Result<()> {
        let manager = self.manager.clone();
        blocking(move || manager.deactivate(number)).await
    }

    /// Forgets and undoes what nobody is at work on and is not whole. Answers how many.
    pub(crate) async fn settle(&self) -> Result<usize> {
        let manager = self.manager.clone();
        // What is done has mounts, and what has mounts has a record: so records are read before mounts and after.
        let before = self.core.state();
        let there: BTreeSet<u64> = blocking(move || manager.numbers()).await?.into_iter().collect();
        let stale = before.mounts.all().filter(|(_, record)| !record.done || !there.contains(&record.number));
        let mut settled = 0;
        for (path, record) in stale {
            let Some(_busy) = self.busy.try_alone(path) else { continue };
            let namespace = Namespace::new(path.split('\0').next().unwrap_or_default())?;
            let (scope, name) = (Scope::new(namespace), part(path, 1));
            if self.core.state().mounts.get(path).is_some_and(|now| now == record) {
                self.forget(&scope, name).await?;
                settled += 1;
            }
        }
        let after = self.core.state();
        let known: BTreeSet<u64> = after.mounts.all().map(|(_, record)| record.number).collect();
        for number in there.difference(&known) {
            match self.undo(*number).await {
                Ok(()) => settled += 1,
                Err(error) => tracing::warn!(number, error = %error.chain(), "mounts could not be undone"),
            }
        }
        Ok(settled)
    }
}

fn left(name: &str, error: &Error) {
    tracing::warn!(name, error = %error.chain(), "mounts are left to the collector");
}

fn active(made: kevel_mount::ActiveMount) -> Result<ActiveMount> {
    let kevel_mount::ActiveMount { mount, point, at } = made;
    let mount_point = point.into_os_string().into_string();
    let mount_point = mount_point.map_err(|path| Error::internal(format!("mount point {path:?} is not UTF-8")))?;
    Ok(ActiveMount { mount, mounted_at: at, mount_point, data: Labels::new() })
}

/// Mounting blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> kevel_mount::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Error::internal("mounting panicked").with_source(error))??)
}
