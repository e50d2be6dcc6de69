//! How changes are made: on a draft of the state, on the database's writer; what is published is always committed.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use kevel_contract::{Scope, event::EventExchange, lease::Resource, metadata::Activity};
use kevel_database::{Batch, Database};
use kevel_model::{Any, Error, Labels, Namespace, Result};
use tokio::sync::watch;

use crate::{
    claim::Claims,
    event::Event,
    record::Stored as _,
    shelf::key,
    state::{Kind, Leases, Namespaces, Resources, State},
};

/// What the stores share.
pub(crate) struct Core {
    database: Database,
    /// As of the last commit; what readers get.
    published: RwLock<State>,
    /// As of the last piece of work that the writer ran in the commit that is being made.
    draft: Mutex<Option<State>>,
    events: EventExchange,
    activity: watch::Sender<Activity>,
    /// The next number in backend names.
    next: AtomicU64,
    /// Blobs that are being committed or deleted.
    pub(crate) blobs: Claims,
    /// Backend names of snapshots and ingests that are not recorded yet.
    pub(crate) reserved: Claims,
}

impl Core {
    /// Reads the state. Does blocking I/O.
    pub(crate) fn open(database: Database, events: EventExchange) -> Result<Arc<Self>> {
        let state = State::load(&database)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let used = state.snapshots.all().map(|(_, snapshot)| &snapshot.backend);
        let used = used.chain(state.ingests.all().map(|(_, ingest)| &ingest.backend));
        let used = used.filter_map(|name| name.split('/').nth(1)?.parse().ok());
        let highest = used.chain(state.mounts.all().map(|(_, mounts)| mounts.number)).max().unwrap_or(0);
        Ok(Arc::new(Self {
            database,
            published: RwLock::new(state),
            draft: Mutex::new(None),
            events,
            activity: watch::Sender::new(Activity::default()),
            // Beginning at the time keeps clear of names that a crash left behind in a backend without a record.
            next: AtomicU64::new(u64::try_from(now).unwrap_or(0).max(highest) + 1),
            blobs: Claims::default(),
            reserved: Claims::default(),
        }))
    }

    /// The state as of the last commit.
    pub(crate) fn state(&self) -> State {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.subscribe()
    }

    /// A backend name that nothing ever had: `namespace/number/name`, as containerd makes them.
    pub(crate) fn backend_name(&self, namespace: &Namespace, name: &str) -> String {
        format!("{namespace}/{}/{name}", self.number())
    }

    /// A number that nothing ever had.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a change in a namespace. `work` runs on the writer: no I/O, no backend, no waiting. When it fails nothing
    /// is changed. The answer, and the events that `work` noted, come after the change is durable.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        namespace: &Namespace,
        work: impl FnOnce(&mut Draft<'_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (core, name) = (Arc::clone(self), namespace.clone());
        let (result, events) = self.database.write(move |batch| core.draft(batch, name, work)).await?;
        for Event { namespace, topic, event } in events {
            let scope = Scope::new(namespace);
            if let Err(error) = self.events.publish(&scope, topic, event).await {
                tracing::warn!(topic, error = %error.chain(), "event could not be published");
            }
        }
        Ok(result)
    }

    /// Runs on the writer.
    fn draft<T>(
        self: &Arc<Self>,
        batch: &mut Batch<'_>,
        namespace: Namespace,
        work: impl FnOnce(&mut Draft<'_, '_>) -> Result<T>,
    ) -> Result<(T, Vec<Event>)> {
        let mut slot = self.draft.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = slot.clone().unwrap_or_else(|| self.state());
        let mut draft = Draft {
            state: &mut state,
            batch,
            namespace,
            now: SystemTime::now(),
            events: Vec::new(),
            deletes: false,
            changed: false,
        };
        let result = work(&mut draft)?;
        let (events, deletes, changed) = (draft.events, draft.deletes, draft.changed);
        if changed {
            state.generation += 1;
        }
        *slot = Some(state.clone());
        drop(slot);
        let core = Arc::clone(self);
        batch.after(move |committed| core.committed(committed, state, changed, deletes));
        Ok((result, events))
    }

    fn committed(&self, committed: bool, state: State, changed: bool, deletes: bool) {
        // The next piece of work begins from what is published: this, or what was before the failure.
        self.draft.lock().unwrap_or_else(PoisonError::into_inner).take();
        if !committed || !changed {
            return;
        }
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.activity.send_modify(|activity| {
            activity.mutations += 1;
            activity.deletions += u64::from(deletes);
        });
    }
}

/// A change in the making: the state with it, and what it writes.
pub(crate) struct Draft<'d, 't> {
    /// The state so far.
    pub(crate) state: &'d mut State,
    batch: &'d mut Batch<'t>,
    /// The namespace of the caller.
    pub(crate) namespace: Namespace,
    /// The time of the change.
    pub(crate) now: SystemTime,
    events: Vec<Event>,
    deletes: bool,
    changed: bool,
}

impl Draft<'_, '_> {
    /// The key of an object in the caller's namespace.
    pub(crate) fn key(&self, parts: &[&str]) -> String {
        key(&self.namespace, parts)
    }

    /// The object under a key, or "not found" with its name.
    pub(crate) fn get<K: Kind>(&self, key: &str, name: &str) -> Result<Arc<K::Object>> {
        K::shelf(self.state).get(key).cloned().ok_or_else(|| missing::<K>(name))
    }

    /// Refuses a key that is taken.
    pub(crate) fn vacant<K: Kind>(&self, key: &str, name: &str) -> Result<()> {
        match K::shelf(self.state).get(key) {
            Some(_) => Err(Error::already_exists(format!("{} {name:?} already exists", K::NAME))),
            None => Ok(()),
        }
    }

    /// Stores an object and sees to it that the namespace of the caller exists.
    pub(crate) fn put<K: Kind>(&mut self, key: &str, object: K::Object) {
        let namespace = self.namespace.as_str().to_owned();
        if self.state.namespaces.get(&namespace).is_none() {
            self.store::<Namespaces>(&namespace, Labels::new());
        }
        self.store::<K>(key, object);
    }

    fn store<K: Kind>(&mut self, key: &str, object: K::Object) {
        self.batch.put(K::TABLE, key.as_bytes(), &object.record());
        K::shelf_mut(self.state).insert(key, Arc::new(object));
        self.changed = true;
    }

    /// Removes an object; none is fine.
    pub(crate) fn remove<K: Kind>(&mut self, key: &str) {
        self.forget::<K>(key);
        self.deletes = true;
    }

    /// Removes an object that the garbage collector found, which is no reason to look for more.
    pub(crate) fn forget<K: Kind>(&mut self, key: &str) {
        self.batch.delete(K::TABLE, key.as_bytes());
        K::shelf_mut(self.state).remove(key);
        self.changed = true;
    }

    /// Says that the change may have left garbage although it removed nothing.
    pub(crate) fn dirty(&mut self) {
        self.deletes = true;
    }

    /// Notes an event to publish after the commit.
    pub(crate) fn event(&mut self, topic: &'static str, event: Any) {
        self.events.push(Event { namespace: self.namespace.clone(), topic, event });
    }

    /// Notes an event of another namespace.
    pub(crate) fn event_in(&mut self, namespace: &str, topic: &'static str, event: Any) {
        if let Ok(namespace) = Namespace::new(namespace) {
            self.events.push(Event { namespace, topic, event });
        }
    }

    /// Adds a new object to the lease of the call, if it has one.
    pub(crate) fn lease(&mut self, scope: &Scope, kind: &str, id: &str) -> Result<()> {
        let Some(lease) = &scope.lease else { return Ok(()) };
        self.get::<Leases>(&self.key(&[lease]), lease)?;
        let key = self.key(&[lease, kind, id]);
        self.put::<Resources>(&key, Resource { kind: kind.to_owned(), id: id.to_owned() });
        Ok(())
    }

    /// Takes an object that is gone out of the lease of the call.
    pub(crate) fn unlease(&mut self, scope: &Scope, kind: &str, id: &str) {
        let Some(lease) = &scope.lease else { return };
        let key = self.key(&[lease, kind, id]);
        if self.state.resources.get(&key).is_some() {
            self.remove::<Resources>(&key);
        }
    }
}

/// "not found", with the sort and name of what is missing.
pub(crate) fn missing<K: Kind>(name: &str) -> Error {
    Error::not_found(format!("{} {name:?} not found", K::NAME))
}
