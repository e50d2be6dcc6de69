//! Which events of their tasks' ends shims still owe.
//!
//! A shim answers Wait and Delete before it has sent the events of them, and drops what it has not sent when it is asked to
//! shut down. So it is asked only when both were seen, and what does not come is published in its name.

use std::{collections::HashMap, sync::Arc};

use futures::StreamExt as _;
use kevel_contract::event::{Envelope, EventExchange};
use kevel_model::Filters;
use kevel_proto::containerd::events::{TaskDelete, TaskExit, TaskStart};
use prost::{Message, Name};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use super::Key;

const TOPICS: [&str; 3] = ["topic==/tasks/start", "topic==/tasks/exit", "topic==/tasks/delete"];

/// Events of a task that are still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) exit: bool,
    pub(super) delete: bool,
}

impl Owed {
    pub(super) const ALL: Self = Self { exit: true, delete: true };

    fn nothing(self) -> bool {
        self == Self { exit: false, delete: false }
    }
}

/// Tasks whose start was seen, and not all of their end.
pub(super) struct Reports {
    open: watch::Sender<HashMap<Key, Owed>>,
    followed: OnceCell<()>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { open: watch::Sender::new(HashMap::new()), followed: OnceCell::new() }
    }
}

impl Reports {
    /// Reads the events from now on, until `closing`. Doing it again does nothing.
    pub(super) async fn follow(self: &Arc<Self>, events: &EventExchange, closing: &CancellationToken) {
        let begin = async {
            let Some(stream) = subscribe(events).await else { return };
            let (reports, events, closing) = (self.clone(), events.clone(), closing.clone());
            tokio::spawn(async move { closing.run_until_cancelled(reports.read(stream, &events)).await });
        };
        self.followed.get_or_init(|| begin).await;
    }

    async fn read(&self, mut stream: Stream, events: &EventExchange) {
        loop {
            match stream.next().await {
                Some(Ok(envelope)) => self.note(&envelope),
                // Something was missed, so nothing is known of what was open.
                Some(Err(_)) | None => {
                    self.open.send_modify(HashMap::clear);
                    let Some(again) = subscribe(events).await else { return };
                    stream = again;
                }
            }
        }
    }

    fn note(&self, envelope: &Envelope) {
        let key = |id: String| (envelope.namespace.clone(), id);
        match envelope.topic.as_str() {
            "/tasks/start" => {
                if let Some(TaskStart { container_id, .. }) = read(envelope) {
                    self.open.send_modify(|open| {
                        open.insert(key(container_id), Owed::ALL);
                    });
                }
            }
            "/tasks/exit" => {
                if let Some(TaskExit { container_id, id, .. }) = read(envelope)
                    && container_id == id
                {
                    self.settle(&key(id), |owed| owed.exit = false);
                }
            }
            _ => {
                if let Some(TaskDelete { container_id, id, .. }) = read(envelope)
                    && (id.is_empty() || id == container_id)
                {
                    self.settle(&key(container_id), |owed| owed.delete = false);
                }
            }
        }
    }

    fn settle(&self, key: &Key, change: impl FnOnce(&mut Owed)) {
        self.open.send_if_modified(|open| {
            let Some(owed) = open.get_mut(key) else { return false };
            change(owed);
            if owed.nothing() {
                open.remove(key);
            }
            true
        });
    }

    /// What a task's shim owes; `None` when that is nothing, or its start was not seen.
    pub(super) fn owed(&self, key: &Key) -> Option<Owed> {
        self.open.borrow().get(key).copied()
    }

    /// Waits until a task's shim owes nothing.
    pub(super) async fn settled(&self, key: &Key) {
        let _ = self.open.subscribe().wait_for(|open| !open.contains_key(key)).await; // we hold the sender
    }

    /// Nothing more is expected of a task's shim.
    pub(super) fn forget(&self, key: &Key) {
        self.open.send_if_modified(|open| open.remove(key).is_some());
    }
}

type Stream = futures::stream::BoxStream<'static, kevel_model::Result<Envelope>>;

async fn subscribe(events: &EventExchange) -> Option<Stream> {
    let subscribed = match Filters::parse(&TOPICS) {
        Ok(filters) => events.subscribe(&filters).await,
        Err(error) => Err(error),
    };
    subscribed.inspect_err(|error| tracing::warn!(error = error.chain(), "the events of shims are not followed")).ok()
}

fn read<M: Message + Name + Default>(envelope: &Envelope) -> Option<M> {
    let event = &envelope.event;
    (event.type_name() == M::full_name()).then(|| M::decode(event.value.as_slice()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use kevel_model::{Any, Namespace};

    use super::*;

    fn envelope<M: Message + Name>(topic: &str, event: &M) -> Envelope {
        let event = Any::new(M::full_name(), event.encode_to_vec());
        Envelope { timestamp: SystemTime::now(), namespace: Namespace::k8s(), topic: topic.into(), event }
    }

    #[tokio::test]
    async fn an_end_is_owed_from_the_start_until_both_its_events_came() {
        let (reports, key) = (Reports::default(), (Namespace::k8s(), "c".to_owned()));
        let exit = |id: &str| {
            envelope("/tasks/exit", &TaskExit { container_id: "c".into(), id: id.into(), ..Default::default() })
        };
        let delete = |id: &str| {
            envelope("/tasks/delete", &TaskDelete { container_id: "c".into(), id: id.into(), ..Default::default() })
        };
        reports.note(&exit("c"));
        assert_eq!(reports.owed(&key), None, "it was not seen to start");
        reports.note(&envelope("/tasks/start", &TaskStart { container_id: "c".into(), pid: 1 }));
        reports.note(&exit("x1"));
        reports.note(&delete("x1"));
        assert_eq!(reports.owed(&key), Some(Owed::ALL), "those of an exec do not count");
        reports.note(&delete(""));
        assert_eq!(reports.owed(&key), Some(Owed { exit: true, delete: false }));
        let waiting = reports.settled(&key);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        reports.note(&exit("c"));
        waiting.await;
        assert_eq!(reports.owed(&key), None);
        assert!(reports.open.borrow().is_empty());
    }
}
