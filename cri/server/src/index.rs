//! Every pod and container, in memory. What lists and statuses answer from; a snapshot costs nothing and never changes.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::ContainerEventType;
use rpds::HashTrieMapSync;

use crate::{
    event::{Event, Hub},
    identity,
    record::{ContainerRecord, ContainerState, Phase, SandboxRecord},
};

/// A pod sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// What is on disk.
    pub(crate) record: Arc<SandboxRecord>,
    /// Whether its processes run; what the kubelet calls ready.
    pub(crate) ready: bool,
    /// When it ended, in nanoseconds since the epoch; 0 while it runs.
    pub(crate) exited_at: i64,
}

/// A container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// What never changes.
    pub(crate) record: Arc<ContainerRecord>,
    /// What does.
    pub(crate) state: Arc<ContainerState>,
}

/// Everything at one moment.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) pods: HashTrieMapSync<String, Arc<Pod>>,
    pub(crate) containers: HashTrieMapSync<String, Arc<Container>>,
}

/// The index, and who is told of its changes.
#[derive(Default)]
pub(crate) struct Index {
    now: RwLock<Snapshot>,
    /// The stamp that was given last, in nanoseconds since the epoch.
    last: AtomicI64,
    /// How often anything changed.
    changes: AtomicU64,
    pub(crate) hub: Hub,
}

impl Index {
    /// Everything as it is now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.read().clone()
    }

    /// Everything as it is now, and a stamp: every change with an earlier one is in it, none with a later one is.
    pub(crate) fn stamped(&self) -> (Snapshot, i64) {
        let now = self.read();
        (now.clone(), self.stamp()) // under the lock, so that no change comes between both
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Snapshot> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time, later than every stamp before even when the clock was set back. Called with the lock held.
    fn stamp(&self) -> i64 {
        let now = identity::now();
        let before = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
        now.max(before.unwrap_or_else(|last| last) + 1)
    }

    /// How often anything changed so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        self.changes.fetch_add(1, Ordering::Relaxed);
        change(&mut self.now.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells what a change was; called with the lock held, so that events have the order of the changes.
    fn tell(&self, now: &Snapshot, pod: &Arc<Pod>, container: &str, what: ContainerEventType) {
        if self.hub.is_heard() {
            let (stamp, pod, now) = (self.stamp(), pod.clone(), now.clone());
            self.hub.publish(Event { stamp, what, container: container.to_owned(), pod, now });
        }
    }

    /// Adds or replaces a pod, without a word.
    pub(crate) fn put_pod(&self, pod: Pod) {
        self.change(|now| now.pods.insert_mut(pod.record.id.clone(), Arc::new(pod)));
    }

    /// Adds a pod that was made and started.
    pub(crate) fn announce_pod(&self, pod: Pod) {
        let (id, pod) = (pod.record.id.clone(), Arc::new(pod));
        self.change(|now| {
            now.pods.insert_mut(id.clone(), pod.clone());
            self.tell(now, &pod, &id, ContainerEventType::ContainerCreatedEvent);
            self.tell(now, &pod, &id, ContainerEventType::ContainerStartedEvent);
        });
    }

    /// Changes a pod if it is there; answers whether it was.
    pub(crate) fn change_pod(&self, id: &str, change: impl FnOnce(&mut Pod)) -> bool {
        self.change(|now| {
            let Some(pod) = now.pods.get(id) else { return false };
            let mut pod = Pod::clone(pod);
            change(&mut pod);
            now.pods.insert_mut(id.to_owned(), Arc::new(pod));
            true
        })
    }

    /// Says that a pod has ended, once.
    pub(crate) fn end_pod(&self, id: &str, at: i64) {
        self.change(|now| {
            let Some(pod) = now.pods.get(id) else { return };
            let first = pod.ready;
            let exited_at = if pod.exited_at == 0 { at } else { pod.exited_at };
            let pod = Arc::new(Pod { record: pod.record.clone(), ready: false, exited_at });
            now.pods.insert_mut(id.to_owned(), pod.clone());
            if first {
                self.tell(now, &pod, id, ContainerEventType::ContainerStoppedEvent);
            }
        });
    }

    /// Removes a pod. The event has it as it was, which is how the kubelet knows whose end it is.
    pub(crate) fn remove_pod(&self, id: &str) {
        self.change(|now| {
            let Some(pod) = now.pods.get(id).cloned() else { return };
            now.pods.remove_mut(id);
            self.tell(now, &pod, id, ContainerEventType::ContainerDeletedEvent);
        });
    }

    /// Adds or replaces a container, without a word.
    pub(crate) fn put_container(&self, container: Container) {
        self.change(|now| now.containers.insert_mut(container.record.id.clone(), Arc::new(container)));
    }

    /// Adds a container that was made.
    pub(crate) fn announce_container(&self, container: Container) {
        let (id, pod) = (container.record.id.clone(), container.record.sandbox_id.clone());
        self.change(|now| {
            now.containers.insert_mut(id.clone(), Arc::new(container));
            self.tell_of(now, &pod, &id, ContainerEventType::ContainerCreatedEvent);
        });
    }

    /// Changes a container's state if it is there; answers the new state. With `what`, tells.
    pub(crate) fn change_state(
        &self,
        id: &str,
        what: Option<ContainerEventType>,
        change: impl FnOnce(&mut ContainerState),
    ) -> Option<Arc<ContainerState>> {
        self.change(|now| {
            let container = now.containers.get(id)?;
            let mut state = ContainerState::clone(&container.state);
            change(&mut state);
            let state = Arc::new(state);
            let pod = container.record.sandbox_id.clone();
            let changed = Container { record: container.record.clone(), state: state.clone() };
            now.containers.insert_mut(id.to_owned(), Arc::new(changed));
            if let Some(what) = what {
                self.tell_of(now, &pod, id, what);
            }
            Some(state)
        })
    }

    /// Removes a container.
    pub(crate) fn remove_container(&self, id: &str) {
        self.change(|now| {
            let Some(pod) = now.containers.get(id).map(|one| one.record.sandbox_id.clone()) else { return };
            now.containers.remove_mut(id);
            self.tell_of(now, &pod, id, ContainerEventType::ContainerDeletedEvent);
        });
    }

    /// As [`Index::tell`], for a container of a pod; of a pod that is not there, nobody could make sense.
    fn tell_of(&self, now: &Snapshot, pod: &str, container: &str, what: ContainerEventType) {
        if let Some(pod) = now.pods.get(pod) {
            self.tell(now, pod, container, what);
        }
    }

    /// The pod that `id` names: all of it, or a beginning that no other has.
    pub(crate) fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        let now = self.snapshot();
        find(&now.pods, id, "pod sandbox")
    }

    /// The container that `id` names: all of it, or a beginning that no other has.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        let now = self.snapshot();
        find(&now.containers, id, "container")
    }
}

impl Snapshot {
    /// Containers of a pod, oldest first.
    pub(crate) fn containers_of(&self, pod: &str) -> Vec<Arc<Container>> {
        let mut of: Vec<_> = self.containers.values().filter(|one| one.record.sandbox_id == pod).cloned().collect();
        of.sort_by_key(|one| one.record.created_at);
        of
    }

    /// The pod that was made under a name.
    pub(crate) fn pod_named(&self, name: &str) -> Option<&Arc<Pod>> {
        self.pods.values().find(|pod| pod.record.name == name)
    }

    /// The container that was made under a name in a pod.
    pub(crate) fn container_named(&self, pod: &str, name: &str) -> Option<&Arc<Container>> {
        self.containers.values().find(|one| one.record.sandbox_id == pod && one.record.name == name)
    }
}

impl Pod {
    /// A pod as its record says it is, nobody having looked at its processes.
    pub(crate) fn new(record: SandboxRecord) -> Self {
        Self { ready: record.phase == Phase::Ready, record: Arc::new(record), exited_at: 0 }
    }
}

fn find<T>(map: &HashTrieMapSync<String, Arc<T>>, id: &str, what: &str) -> Result<Arc<T>> {
    if id.is_empty() {
        return Err(Error::invalid_argument(format!("{}_id: empty", what.replace(' ', "_"))));
    }
    if let Some(found) = map.get(id) {
        return Ok(found.clone());
    }
    let mut found = map.iter().filter(|(key, _)| key.starts_with(id));
    match (found.next(), found.next()) {
        (Some((_, only)), None) => Ok(only.clone()),
        (Some(_), Some(_)) => Err(Error::invalid_argument(format!("{what} id {id:?} is the beginning of several"))),
        (None, _) => {
            Err(Error::not_found(format!("{what} {:?} does not exist", id.chars().take(80).collect::<String>())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_whatever_the_clock_does() {
        let index = Index::default();
        let first = index.stamped().1;
        let ahead = first + 3_600_000_000_000;
        index.last.store(ahead, Ordering::Relaxed);
        assert_eq!((index.stamped().1, index.stamped().1), (ahead + 1, ahead + 2));
    }
}
