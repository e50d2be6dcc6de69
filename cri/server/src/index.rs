//! Every pod and container, in memory. What lists and statuses answer from; a snapshot costs nothing and never changes.

use std::sync::{Arc, PoisonError, RwLock};

use kevel_model::{Error, Result};
use rpds::HashTrieMapSync;

use crate::record::{ContainerRecord, ContainerState, Phase, SandboxRecord};

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

/// The index.
#[derive(Default)]
pub(crate) struct Index {
    now: RwLock<Snapshot>,
}

impl Index {
    /// Everything as it is now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.now.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds or replaces a pod.
    pub(crate) fn put_pod(&self, pod: Pod) {
        self.change(|now| now.pods.insert_mut(pod.record.id.clone(), Arc::new(pod)));
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

    /// Removes a pod.
    pub(crate) fn remove_pod(&self, id: &str) {
        self.change(|now| now.pods.remove_mut(id));
    }

    /// Adds or replaces a container.
    pub(crate) fn put_container(&self, container: Container) {
        self.change(|now| now.containers.insert_mut(container.record.id.clone(), Arc::new(container)));
    }

    /// Changes a container's state if it is there; answers the new state.
    pub(crate) fn change_state(
        &self,
        id: &str,
        change: impl FnOnce(&mut ContainerState),
    ) -> Option<Arc<ContainerState>> {
        self.change(|now| {
            let container = now.containers.get(id)?;
            let mut state = ContainerState::clone(&container.state);
            change(&mut state);
            let state = Arc::new(state);
            let changed = Container { record: container.record.clone(), state: state.clone() };
            now.containers.insert_mut(id.to_owned(), Arc::new(changed));
            Some(state)
        })
    }

    /// Removes a container.
    pub(crate) fn remove_container(&self, id: &str) {
        self.change(|now| now.containers.remove_mut(id));
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
        return Err(Error::invalid_argument(format!("{what} id is empty")));
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
