//! Which tasks there are, and a watch over each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kevel_cgroup::{Hierarchies, OomCounter, Place};
use kevel_contract::{
    Scope,
    event::{Envelope, EventExchange},
    namespace::NamespaceStore,
    task::{State, Tasks},
};
use kevel_model::{Any, Filters, Namespace, Result};
use kevel_proto::{
    any,
    containerd::events::{TaskDelete, TaskOom, TaskStart},
};
use prost::Name;

const START: &str = "/tasks/start";
const DELETE: &str = "/tasks/delete";
const OOM: &str = "/tasks/oom";

/// Between two attempts to follow tasks.
const PAUSE: Duration = Duration::from_secs(1);
/// A kill is told once: not when the shim did so within this time before or after.
const TOLD: Duration = Duration::from_secs(2);
/// How long the shim gets to tell it first.
const WAIT: Duration = Duration::from_millis(300);
/// More tasks than a node has; those beyond are not watched.
const TASKS: usize = 16_384;

/// A task by its namespace and container.
pub(crate) type Key = (Namespace, String);

/// The monitor. Cheap to clone.
#[derive(Clone)]
pub struct Monitor(Arc<Inner>);

struct Inner {
    hierarchies: Hierarchies,
    events: EventExchange,
    tasks: Mutex<BTreeMap<Key, Watched>>,
}

struct Watched {
    place: Arc<Place>,
    told: Option<Instant>,
    task: Option<tokio::task::AbortHandle>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Monitor {
    /// A monitor that watches nothing yet.
    pub fn new(hierarchies: Hierarchies, events: EventExchange) -> Self {
        Self(Arc::new(Inner { hierarchies, events, tasks: Mutex::default() }))
    }

    /// Follows tasks as they come and go, until it is dropped.
    pub async fn follow(self, namespaces: NamespaceStore, tasks: Tasks) {
        loop {
            if let Err(error) = self.follow_once(&namespaces, &tasks).await {
                tracing::debug!(error = error.chain(), "following tasks; trying again");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Subscribes first and looks then, so that no task comes between both.
    async fn follow_once(&self, namespaces: &NamespaceStore, tasks: &Tasks) -> Result<()> {
        let filters = [START, DELETE, OOM].map(|topic| format!("topic=={topic}"));
        let mut events = self.0.events.subscribe(&Filters::parse(&filters)?).await?;
        for (namespace, _) in namespaces.list().await? {
            for process in tasks.list(&Scope::new(namespace.clone()), &Filters::default()).await? {
                if matches!(process.state, State::Running | State::Paused)
                    && (process.id.is_empty() || process.id == process.container_id)
                {
                    self.add((namespace.clone(), process.container_id), process.pid);
                }
            }
        }
        while let Some(event) = events.next().await {
            self.heard(event?);
        }
        Ok(())
    }

    fn heard(&self, envelope: Envelope) {
        let event = prost_types::Any { type_url: envelope.event.type_url, value: envelope.event.value };
        match envelope.topic.as_str() {
            START => {
                if let Ok(start) = any::unpack::<TaskStart>(&event) {
                    self.add((envelope.namespace, start.container_id), start.pid);
                }
            }
            DELETE => {
                if let Ok(delete) = any::unpack::<TaskDelete>(&event)
                    && (delete.id.is_empty() || delete.id == delete.container_id)
                {
                    self.lock().remove(&(envelope.namespace, delete.container_id));
                }
            }
            _ => {
                if let Ok(oom) = any::unpack::<TaskOom>(&event) {
                    let mut tasks = self.lock();
                    if let Some(watched) = tasks.get_mut(&(envelope.namespace, oom.container_id)) {
                        watched.told = Some(Instant::now());
                    }
                }
            }
        }
    }

    fn add(&self, key: Key, pid: u32) {
        // A task that ended already has no place; one that is watched already stays so.
        let Ok(place) = self.0.hierarchies.place(pid) else { return };
        let place = Arc::new(place.named(&key.1));
        let mut tasks = self.lock();
        if tasks.contains_key(&key) || tasks.len() >= TASKS {
            return;
        }
        let task = tokio::spawn(self.clone().watch(key.clone(), place.clone())).abort_handle();
        tasks.insert(key, Watched { place, told: None, task: Some(task) });
    }

    async fn watch(self, key: Key, place: Arc<Place>) {
        let Some(counter) = OomCounter::of(&place) else { return };
        let mut watch = match counter.watch() {
            Ok(watch) => watch,
            Err(error) => {
                tracing::debug!(container = key.1, %error, "kills for want of memory are not watched");
                return;
            }
        };
        loop {
            match watch.next().await {
                Ok(Some(_)) => self.tell(&key).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(container = key.1, %error, "kills for want of memory are no longer watched");
                    return;
                }
            }
        }
    }

    /// Tells of a kill, unless the shim has or does.
    async fn tell(&self, key: &Key) {
        tokio::time::sleep(WAIT).await;
        if self.lock().get(key).and_then(|watched| watched.told).is_some_and(|told| told.elapsed() < TOLD) {
            return;
        }
        let event = TaskOom { container_id: key.1.clone() };
        let any = Any::new(TaskOom::full_name(), prost::Message::encode_to_vec(&event));
        if let Err(error) = self.0.events.publish(&Scope::new(key.0.clone()), OOM, any).await {
            tracing::warn!(container = key.1, error = error.chain(), "a kill for want of memory was not told");
        }
    }

    /// Every task that is watched, with its place.
    pub(crate) fn places(&self) -> Vec<(Key, Arc<Place>)> {
        self.lock().iter().map(|(key, watched)| (key.clone(), watched.place.clone())).collect()
    }

    /// Watches nothing any more.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Watched>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use kevel_contract::{call::Target, event};
    use tokio::sync::mpsc;

    use super::*;

    /// An exchange that keeps what is published.
    struct Kept(mpsc::UnboundedSender<(String, String)>);

    #[async_trait]
    impl event::Backend for Kept {
        async fn publish(&self, scope: &Scope, topic: &str, event: Any) -> Result<()> {
            let event = prost_types::Any { type_url: event.type_url, value: event.value };
            let oom: TaskOom = any::unpack(&event).unwrap();
            self.0.send((format!("{} {topic}", scope.namespace), oom.container_id)).unwrap();
            Ok(())
        }
        async fn forward(&self, _: Envelope) -> Result<()> {
            Ok(())
        }
        async fn subscribe(&self, _: &Filters) -> Result<BoxStream<'static, Result<Envelope>>> {
            Ok(Box::pin(futures::stream::pending()))
        }
    }

    fn envelope<M: Name>(topic: &str, message: &M) -> Envelope {
        let event = Any::new(M::full_name(), message.encode_to_vec());
        let timestamp = std::time::SystemTime::now();
        Envelope { timestamp, namespace: Namespace::k8s(), topic: topic.to_owned(), event }
    }

    #[tokio::test]
    async fn a_kill_is_told_once_by_whoever_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        std::fs::write(&file, "oom_kill 0\n").unwrap();
        let (sender, mut told) = mpsc::unbounded_channel();
        let events = EventExchange::new(Target::local("events"), Kept(sender));
        let monitor = Monitor::new(Hierarchies::default(), events);
        let key = (Namespace::k8s(), "c".to_owned());
        let place = Arc::new(Place { unified: Some(dir.path().to_owned()), ..Place::default() });
        monitor.lock().insert(key.clone(), Watched { place: place.clone(), told: None, task: None });
        let watching = tokio::spawn(monitor.clone().watch(key.clone(), place));
        // The watch has begun when a change that is no kill has been read: rewrite until the kill is told.
        let kill = |count: u64| {
            let mut file = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
            file.write_all(format!("oom_kill {count}\n").as_bytes()).unwrap();
        };
        let mut count = 0;
        let first = loop {
            count += 1;
            kill(count);
            if let Ok(first) = tokio::time::timeout(Duration::from_millis(600), told.recv()).await {
                break first.unwrap();
            }
            assert!(count < 50, "no kill was told");
        };
        assert_eq!(first, ("k8s.io /tasks/oom".to_owned(), "c".to_owned()));
        while tokio::time::timeout(Duration::from_millis(600), told.recv()).await.is_ok() {}
        // The shim says so too; what the monitor sees then is the same kill.
        monitor.heard(envelope(OOM, &TaskOom { container_id: "c".into() }));
        kill(count + 1);
        assert!(tokio::time::timeout(Duration::from_millis(800), told.recv()).await.is_err());
        monitor
            .heard(envelope(DELETE, &TaskDelete { container_id: "c".into(), id: "exec".into(), ..Default::default() }));
        assert_eq!(monitor.places().len(), 1);
        monitor.heard(envelope(DELETE, &TaskDelete { container_id: "c".into(), ..Default::default() }));
        assert!(monitor.places().is_empty());
        watching.abort();
    }

    #[tokio::test]
    async fn a_task_that_is_gone_is_not_watched() {
        let (sender, _told) = mpsc::unbounded_channel();
        let events = EventExchange::new(Target::local("events"), Kept(sender));
        let monitor = Monitor::new(Hierarchies::of_node().unwrap(), events);
        let own = std::process::id();
        monitor.heard(envelope(START, &TaskStart { container_id: "c".into(), pid: own }));
        monitor.heard(envelope(START, &TaskStart { container_id: "d".into(), pid: u32::MAX }));
        assert_eq!(monitor.places().into_iter().map(|(key, _)| key.1).collect::<Vec<_>>(), ["c"]);
        monitor.close();
        assert!(monitor.places().is_empty());
    }
}
