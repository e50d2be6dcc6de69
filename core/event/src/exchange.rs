//! The exchange itself.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use kevel_contract::{
    Scope,
    event::{Backend, Envelope},
};
use kevel_model::{Any, Filters, Result};

use crate::{
    Error,
    queue::{Limits, Offer, Subscriber},
    validate,
};

/// What may wait for one subscriber: a burst of 4096 events, 16 MiB.
const LIMITS: Limits = Limits { events: 4096, bytes: 16 << 20 };

/// How many may subscribe at once.
const MAX_SUBSCRIBERS: usize = 1024;

/// An event exchange in this process.
#[derive(Debug)]
pub struct Exchange {
    limits: Limits,
    // Held while an event is offered to all, so that all see one order. Offering never waits.
    subscribers: Mutex<Subscribers>,
}

#[derive(Default)]
struct Subscribers(Vec<Subscriber>);

impl std::fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} subscribers", self.0.len())
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self { limits: LIMITS, subscribers: Mutex::default() }
    }
}

impl Exchange {
    fn with<T>(&self, use_all: impl FnOnce(&mut Vec<Subscriber>) -> T) -> T {
        use_all(&mut self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    fn send(&self, envelope: Envelope) -> Result<()> {
        validate::envelope(&envelope)?;
        let envelope = Arc::new(envelope);
        self.with(|all| all.retain(|subscriber| subscriber.offer(&envelope) == Offer::Done));
        Ok(())
    }
}

#[async_trait]
impl Backend for Exchange {
    async fn publish(&self, scope: &Scope, topic: &str, event: Any) -> Result<()> {
        let (timestamp, namespace) = (SystemTime::now(), scope.namespace.clone());
        self.send(Envelope { timestamp, namespace, topic: topic.to_owned(), event })
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        self.send(envelope)
    }

    async fn subscribe(&self, filters: &Filters) -> Result<BoxStream<'static, Result<Envelope>>> {
        let (subscriber, stream) = Subscriber::new(filters.clone(), self.limits);
        self.with(|all| {
            all.retain(|subscriber| !subscriber.is_gone());
            if all.len() >= MAX_SUBSCRIBERS {
                return Err(Error::Subscribers(all.len()).into());
            }
            all.push(subscriber);
            Ok(stream)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use futures::{FutureExt as _, StreamExt as _};
    use kevel_model::{Code, Namespace};

    use super::*;

    fn scope(namespace: &str) -> Scope {
        Scope::new(Namespace::new(namespace).unwrap())
    }

    fn event(size: usize) -> Any {
        Any::new("containerd.events.TaskExit", vec![0; size])
    }

    fn limited(events: usize, bytes: usize) -> Exchange {
        Exchange { limits: Limits { events, bytes }, ..Exchange::default() }
    }

    async fn topics(stream: &mut BoxStream<'static, Result<Envelope>>, count: usize) -> Vec<String> {
        let mut topics = vec![];
        for _ in 0..count {
            topics.push(stream.next().await.unwrap().unwrap().topic);
        }
        topics
    }

    #[tokio::test]
    async fn filters_choose_by_topic_and_namespace() {
        let exchange = Exchange::default();
        let all = exchange.subscribe(&Filters::default()).await.unwrap();
        let some = Filters::parse(&["topic~=|^/tasks/|,namespace==k8s.io", "topic==/images/create"]).unwrap();
        let mut some = exchange.subscribe(&some).await.unwrap();
        for (namespace, topic) in
            [("k8s.io", "/tasks/exit"), ("moby", "/tasks/exit"), ("moby", "/images/create"), ("moby", "/x")]
        {
            exchange.publish(&scope(namespace), topic, event(1)).await.unwrap();
        }
        drop(exchange); // ends the streams
        assert_eq!(topics(&mut some, 2).await, ["/tasks/exit", "/images/create"]);
        assert!(some.next().await.is_none());
        assert_eq!(all.count().await, 4);
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_cut_off_and_told_and_hurts_nobody() {
        for exchange in [limited(3, 1 << 20), limited(1000, 3 * 200)] {
            let mut slow = exchange.subscribe(&Filters::default()).await.unwrap();
            let mut fast = exchange.subscribe(&Filters::default()).await.unwrap();
            for n in 0..10 {
                exchange.publish(&scope("a"), &format!("/n/{n}"), event(150)).await.unwrap();
                assert_eq!(fast.next().await.unwrap().unwrap().topic, format!("/n/{n}"));
            }
            assert_eq!(topics(&mut slow, 3).await, ["/n/0", "/n/1", "/n/2"]);
            let error = slow.next().await.unwrap().unwrap_err();
            assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
            assert!(slow.next().await.is_none());
            assert_eq!(exchange.with(|all| all.len()), 1);
        }
    }

    #[tokio::test]
    async fn a_single_event_may_be_larger_than_the_queue() {
        let exchange = limited(3, 100);
        let mut stream = exchange.subscribe(&Filters::default()).await.unwrap();
        exchange.publish(&scope("a"), "/large", event(1000)).await.unwrap();
        assert_eq!(topics(&mut stream, 1).await, ["/large"]);
        exchange.publish(&scope("a"), "/large", event(1000)).await.unwrap();
        assert_eq!(topics(&mut stream, 1).await, ["/large"]);
    }

    #[tokio::test]
    async fn forwarded_events_stay_as_they_are() {
        let exchange = Exchange::default();
        let mut stream = exchange.subscribe(&Filters::default()).await.unwrap();
        let envelope = Envelope {
            timestamp: UNIX_EPOCH + std::time::Duration::from_secs(7),
            namespace: Namespace::k8s(),
            topic: "/tasks/oom".into(),
            event: event(3),
        };
        exchange.forward(envelope.clone()).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), envelope);
        for bad in [
            Envelope { timestamp: UNIX_EPOCH, ..envelope.clone() },
            Envelope { topic: "tasks".into(), ..envelope.clone() },
        ] {
            assert_eq!(exchange.forward(bad).await.unwrap_err().code(), Code::InvalidArgument);
        }
        assert!(stream.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn subscribers_that_left_are_forgotten() {
        let exchange = Exchange::default();
        for _ in 0..MAX_SUBSCRIBERS + 10 {
            drop(exchange.subscribe(&Filters::default()).await.unwrap());
        }
        let mut kept = vec![];
        for _ in 0..MAX_SUBSCRIBERS {
            kept.push(exchange.subscribe(&Filters::default()).await.unwrap());
        }
        let Err(error) = exchange.subscribe(&Filters::default()).await else { panic!("one too many") };
        assert_eq!(error.code(), Code::ResourceExhausted);
    }
}
