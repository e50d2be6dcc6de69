//! Streams that clients registered and no service has taken yet, and the names of those that run.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    stream::{Backend, Stream},
};
use kevel_model::{Any, Error, Namespace, Result};
use tokio::sync::{Notify, mpsc::WeakSender};

/// How long a service waits for a stream that is not there yet.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many streams may wait or run at a time.
const MAX_STREAMS: usize = 4096;

/// A stream manager in memory.
#[derive(Debug)]
pub struct Manager {
    streams: Mutex<HashMap<(Namespace, String), Slot>>,
    arrived: Notify,
    patience: Duration,
}

impl Default for Manager {
    fn default() -> Self {
        Self { streams: Mutex::default(), arrived: Notify::new(), patience: PATIENCE }
    }
}

/// A stream's state. It runs as long as somebody holds the sending half towards its client.
#[derive(Debug)]
struct Slot {
    waiting: Option<Stream>,
    running: WeakSender<Any>,
}

impl Slot {
    /// Whether its client has gone, or the service is done with it.
    fn over(&self) -> bool {
        self.running.upgrade().is_none_or(|sender| sender.is_closed())
    }
}

#[async_trait]
impl Backend for Manager {
    async fn register(&self, scope: &Scope, id: &str, stream: Stream) -> Result<()> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|_, slot| !slot.over());
        if streams.len() >= MAX_STREAMS {
            return Err(Error::resource_exhausted(format!("more than {MAX_STREAMS} streams are open")));
        }
        let key = (scope.namespace.clone(), id.to_owned());
        if streams.contains_key(&key) {
            return Err(Error::already_exists(format!("stream {id:?}")));
        }
        streams.insert(key, Slot { running: stream.tx.downgrade(), waiting: Some(stream) });
        drop(streams);
        self.arrived.notify_waiters();
        Ok(())
    }

    async fn take(&self, scope: &Scope, id: &str) -> Result<Stream> {
        let key = (scope.namespace.clone(), id.to_owned());
        let wait = async {
            loop {
                // Listens before it looks, so that nothing arrives in between.
                let arrived = self.arrived.notified();
                if let Some(slot) = self.streams.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&key)
                    && let Some(stream) = slot.waiting.take()
                {
                    return stream;
                }
                arrived.await;
            }
        };
        let taken = tokio::time::timeout(self.patience, wait).await;
        taken.map_err(|_| Error::not_found(format!("stream {id:?} did not arrive within {:?}", self.patience)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: &str) -> Scope {
        Scope::new(Namespace::new(name).unwrap())
    }

    #[tokio::test]
    async fn a_stream_is_taken_once_and_its_name_is_free_when_it_ends() {
        let manager = Manager { patience: Duration::from_millis(10), ..Manager::default() };
        let (client, service) = Stream::pair(1);
        manager.register(&scope("a"), "s", service).await.unwrap();
        let (_other, again) = Stream::pair(1);
        assert!(manager.register(&scope("a"), "s", again).await.unwrap_err().is_already_exists());
        let taken = manager.take(&scope("a"), "s").await.unwrap();
        assert!(manager.take(&scope("a"), "s").await.unwrap_err().is_not_found());
        assert!(manager.take(&scope("b"), "s").await.unwrap_err().is_not_found());
        drop(taken);
        let (_other, again) = Stream::pair(1);
        manager.register(&scope("a"), "s", again).await.unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn a_stream_that_comes_later_is_waited_for() {
        let manager = std::sync::Arc::new(Manager::default());
        let taking = tokio::spawn({
            let manager = manager.clone();
            async move { manager.take(&scope("a"), "late").await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        let (_client, service) = Stream::pair(1);
        manager.register(&scope("a"), "late", service).await.unwrap();
        taking.await.unwrap().unwrap();
    }
}
