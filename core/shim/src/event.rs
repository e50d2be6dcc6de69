//! Events on their way to the daemon: a bounded queue, sent in order over ttrpc, again until they arrive.
//!
//! A daemon that is gone comes back, so its absence costs no event until the queue is full; then the oldest goes. An event
//! that the daemon itself refuses is tried a few times and dropped.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use kevel_proto::{
    any,
    containerd::types::Envelope,
    shim::events::{ForwardRequest, SERVICE, method},
};
use kevel_ttrpc::{CallOptions, Client};
use prost::{Message, Name};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many events wait for the daemon.
const QUEUE: usize = 2048;
/// How often an event is sent that the daemon refuses.
const ATTEMPTS: u32 = 5;
/// How long one sending may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two sendings: the first pause, doubling up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long the end of the shim waits for events to arrive.
const CLOSING: Duration = Duration::from_secs(2);

/// Sends events. Cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    queue: Arc<Queue>,
    namespace: String,
    _sending: DropGuard,
}

#[derive(Default)]
struct Queue {
    events: Mutex<Events>,
    changed: Notify,
}

#[derive(Default)]
struct Events {
    waiting: VecDeque<Envelope>,
    sending: bool,
    dropped: u64,
}

impl Publisher {
    /// Sends to a ttrpc socket, by its path. Needs a tokio runtime.
    pub fn start(socket: PathBuf, namespace: String) -> Self {
        let (queue, stop) = (Arc::<Queue>::default(), CancellationToken::new());
        let (sent, stopped) = (queue.clone(), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(send(&sent, &socket)).await });
        Self(Arc::new(Inner { queue, namespace, _sending: stop.drop_guard() }))
    }

    /// Queues an event; nobody waits for it to arrive.
    pub fn publish<M: Message + Name>(&self, topic: &str, event: &M) {
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.0.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(any::pack(event)),
        };
        let mut events = self.0.queue.lock();
        if events.waiting.len() >= QUEUE {
            events.waiting.pop_front();
            events.dropped += 1;
            if events.dropped.is_power_of_two() {
                tracing::warn!(dropped = events.dropped, "events were dropped: the daemon takes none");
            }
        }
        events.waiting.push_back(envelope);
        drop(events);
        self.0.queue.changed.notify_waiters();
    }

    /// Waits until everything has arrived; for two seconds at most.
    pub async fn close(&self) {
        let empty = self.0.queue.wait(|events| events.waiting.is_empty() && !events.sending);
        if tokio::time::timeout(CLOSING, empty).await.is_err() {
            tracing::warn!("events are lost: the daemon takes none");
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self, reached: impl Fn(&Events) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if reached(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}

async fn send(queue: &Queue, socket: &Path) {
    let mut client = None;
    loop {
        queue.wait(|events| !events.waiting.is_empty()).await;
        let envelope = {
            let mut events = queue.lock();
            let envelope = events.waiting.pop_front();
            events.sending = envelope.is_some();
            envelope
        };
        if envelope.is_some() {
            deliver(&ForwardRequest { envelope }, &mut client, socket).await;
        }
        queue.lock().sending = false;
        queue.changed.notify_waiters();
    }
}

/// Sends one event until it has arrived or was refused for good.
async fn deliver(event: &ForwardRequest, client: &mut Option<Client>, socket: &Path) {
    let (mut pause, mut refused) = (PAUSES.0, 0);
    loop {
        match forward(event, client, socket).await {
            Ok(()) => return,
            Err(kevel_ttrpc::Error::Status(status)) => {
                refused += 1;
                if refused == ATTEMPTS {
                    let topic = event.envelope.as_ref().map(|envelope| envelope.topic.as_str());
                    tracing::warn!(topic, error = %status, "an event was refused");
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the daemon is not there for an event; trying again");
                *client = None;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn forward(event: &ForwardRequest, client: &mut Option<Client>, socket: &Path) -> Result<(), kevel_ttrpc::Error> {
    let connection = match client.take().filter(|client| !client.is_closed()) {
        Some(connection) => connection,
        None => Client::connect(socket).await?,
    };
    let connection = client.insert(connection);
    connection.call::<_, ()>(SERVICE, method::FORWARD, event, CallOptions::timeout(LIMIT)).await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kevel_proto::containerd::events::TaskOom;
    use kevel_ttrpc::{Code, Context, Server, Service, Status, server};
    use tokio::sync::mpsc;

    use super::*;

    /// A daemon that refuses an event of the id `no`, and the first sending of every other.
    struct Daemon(mpsc::UnboundedSender<String>, Mutex<std::collections::BTreeSet<String>>);

    #[async_trait::async_trait]
    impl Service for Daemon {
        async fn call(&self, name: &str, payload: Bytes, _: Context) -> Result<Bytes, Status> {
            assert_eq!(name, method::FORWARD);
            let envelope = server::decode::<ForwardRequest>(payload)?.envelope.unwrap();
            assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), ("n", "/tasks/oom"));
            let event: TaskOom = any::unpack(&envelope.event.unwrap()).unwrap();
            if event.container_id == "no" || self.1.lock().unwrap().insert(event.container_id.clone()) {
                return Err(Status::new(Code::Unavailable, "later"));
            }
            self.0.send(event.container_id).unwrap();
            Ok(Bytes::new())
        }
    }

    fn oom(id: &str) -> TaskOom {
        TaskOom { container_id: id.into() }
    }

    #[tokio::test]
    async fn events_arrive_in_order_when_the_daemon_comes_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let publisher = Publisher::start(socket.clone(), "n".into());
        for id in ["a", "no", "b"] {
            publisher.publish("/tasks/oom", &oom(id));
        }
        let (sender, mut arrived) = mpsc::unbounded_channel();
        for ids in [&["a", "b"][..], &["c", "d"]] {
            let _ = std::fs::remove_file(&socket);
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            let mut server = Server::new();
            server.register(SERVICE, Arc::new(Daemon(sender.clone(), Mutex::default()))).unwrap();
            let serving = tokio::spawn(async move { server.serve(listener, CancellationToken::new()).await });
            for id in ids {
                assert_eq!(arrived.recv().await.unwrap(), *id);
            }
            serving.abort();
            let _ = serving.await;
            if ids == ["a", "b"] {
                for id in ["c", "d"] {
                    publisher.publish("/tasks/oom", &oom(id));
                }
            }
        }
        publisher.close().await;
    }

    #[tokio::test]
    async fn a_full_queue_forgets_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let publisher = Publisher::start(dir.path().join("nobody"), "n".into());
        for number in 0..QUEUE + 10 {
            publisher.publish("/tasks/oom", &oom(&number.to_string()));
        }
        let events = publisher.0.queue.lock();
        assert_eq!((events.waiting.len(), events.dropped), (QUEUE, 10));
        let first: TaskOom = any::unpack(events.waiting[0].event.as_ref().unwrap()).unwrap();
        assert_eq!(first.container_id, "10");
    }
}
