//! What remoteness adds: events and streams over the socket, shims' events over ttrpc, backends that are dead, callers
//! that hang up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use futures::StreamExt as _;
use kevel_client::Remote;
use kevel_contract::{
    Scope,
    call::Target,
    diff::{Apply, Backend, Compare, Differ},
};
use kevel_model::{Any, Code, Descriptor, Digest, Filters, Mount, Result};
use kevel_plugin::{Declared, PluginStatus, Report};
use kevel_proto::{containerd::types::Envelope, shim::events};
use kevel_service::diff::Diff;
use node::{Node, scope};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Notify, Semaphore},
};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn events_cross_the_socket_and_ttrpc() {
    let node = Node::new().await;
    let exchange = kevel_client::events(&node.remote());
    let mut received = exchange.subscribe(&Filters::parse(&["topic~=\"^/tasks/\""]).unwrap()).await.unwrap();
    exchange.publish(&scope("a"), "/tasks/start", Any::new("x.Y", [1])).await.unwrap();
    exchange.publish(&scope("a"), "/other", Any::new("x.Y", [2])).await.unwrap();

    let shim = kevel_ttrpc::Client::new(UnixStream::connect(node.ttrpc_socket()).await.unwrap());
    let envelope = Envelope {
        timestamp: Some(SystemTime::now().into()),
        namespace: "b".to_owned(),
        topic: "/tasks/exit".to_owned(),
        event: Some(prost_types::Any { type_url: "x.Z".to_owned(), value: vec![3] }),
    };
    let forward = |envelope| events::ForwardRequest { envelope };
    let options = kevel_ttrpc::CallOptions::default;
    let _: () = shim.call(events::SERVICE, events::method::FORWARD, &forward(Some(envelope)), options()).await.unwrap();
    let refused: Result<(), _> = shim.call(events::SERVICE, events::method::FORWARD, &forward(None), options()).await;
    assert!(refused.unwrap_err().to_string().contains("envelope is required"));

    let next = tokio::time::timeout(LIMIT, async { (received.next().await, received.next().await) });
    let (first, second) = next.await.unwrap();
    let (first, second) = (first.unwrap().unwrap(), second.unwrap().unwrap());
    assert_eq!((first.namespace.as_str(), first.topic.as_str(), first.event.value), ("a", "/tasks/start", vec![1]));
    assert_eq!((second.namespace.as_str(), second.topic.as_str(), second.event.value), ("b", "/tasks/exit", vec![3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_carry_messages_both_ways_and_close() {
    let node = Node::new().await;
    let mut client = kevel_client::stream::open(&node.remote(), &scope("a"), "s1").await.unwrap();
    let taken = kevel_client::stream::open(&node.remote(), &scope("a"), "s1").await;
    assert!(taken.unwrap_err().is_already_exists());
    let mut service = node.streams.take(&scope("a"), "s1").await.unwrap();
    client.tx.send(Any::new("q", [1])).await.unwrap();
    assert_eq!(service.rx.recv().await.unwrap(), Any::new("q", [1]));
    service.tx.send(Any::new("a", [2])).await.unwrap();
    assert_eq!(client.rx.recv().await.unwrap(), Any::new("a", [2]));
    drop(service);
    assert_eq!(tokio::time::timeout(LIMIT, client.rx.recv()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_crosses_the_socket() {
    let node = Node::new().await;
    let report = Report {
        type_name: "io.a.v1".to_owned(),
        id: "one".to_owned(),
        requires: vec!["io.b.v1".to_owned()],
        declared: Declared {
            platforms: vec!["linux/amd64".to_owned()],
            exports: [("root".to_owned(), "/x".to_owned())].into(),
            capabilities: vec!["rebase".to_owned()],
        },
        status: PluginStatus::Skip("skip plugin: not here".to_owned()),
        unknown_keys: Vec::new(),
    };
    node.reports.push(Arc::new(report.clone()));
    let introspection = kevel_client::introspection(&node.remote());
    let found = introspection.plugins(&Filters::parse(&["type==io.a.v1"]).unwrap()).await.unwrap();
    assert_eq!(*found[0], report);
    assert_eq!(introspection.server().await.unwrap().pid, u64::from(std::process::id()));
    let refused = introspection.runtime_info("io.containerd.runc.v2", None).await.unwrap_err();
    assert!(refused.is_not_found(), "{}", refused.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_backend_costs_its_own_callers_only() {
    let node = Node::new().await;
    // Takes connections and never says a word.
    let path = node.directory.path().join("dead.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let deadline = Duration::from_millis(300);
    let dead = Remote::new("dead one", path.to_str().unwrap()).unwrap().deadline(deadline);
    let (dead, alive) = (kevel_client::snapshotter(&dead, "x"), kevel_client::images(&node.remote()));
    let started = Instant::now();
    let calls = futures::future::join_all((0..20).map(|_| async { dead.stat(&scope("a"), "key").await.unwrap_err() }));
    let others = async {
        for _ in 0..20 {
            alive.list(&scope("a"), &Filters::default()).await.unwrap();
        }
    };
    let (errors, ()) = tokio::join!(calls, others);
    assert!(started.elapsed() < LIMIT);
    for error in errors {
        assert_eq!(error.code(), Code::DeadlineExceeded);
        assert!(error.chain().contains("dead one did not answer stat within 300ms"), "{}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_comes_later_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("late.sock");
    let remote = Remote::new("late", path.to_str().unwrap()).unwrap();
    let error = kevel_client::images(&remote).list(&scope("a"), &Filters::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{}", error.chain());
    let node = Node::new().await;
    std::os::unix::fs::symlink(node.socket(), &path).unwrap();
    kevel_client::images(&remote).list(&scope("a"), &Filters::default()).await.unwrap();
}

/// A differ whose work waits for a permit and is told when it is done.
struct Slow {
    started: Arc<Notify>,
    go: Arc<Semaphore>,
    done: Arc<Notify>,
}

#[async_trait]
impl Backend for Slow {
    async fn apply(&self, _: &Scope, layer: &Descriptor, _: &[Mount], _: Apply) -> Result<Descriptor> {
        self.started.notify_one();
        self.go.acquire().await.unwrap().forget();
        self.done.notify_one();
        Ok(layer.clone())
    }

    async fn compare(&self, _: &Scope, _: &[Mount], _: &[Mount], _: Compare) -> Result<Descriptor> {
        Err(kevel_model::Error::unimplemented("compare"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_on_when_its_caller_hangs_up() {
    let (started, go, done) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let slow = Slow { started: started.clone(), go: go.clone(), done: done.clone() };
    let node = Node::with(Diff(Differ::new(Target::local("slow"), slow)).offer()).await;
    let differ = kevel_client::differ(&node.remote());
    let calling = tokio::spawn(async move {
        let layer = Descriptor::new("application/x", Digest::sha256(b""), 0);
        differ.apply(&scope("a"), &layer, &[], Apply::default()).await
    });
    tokio::time::timeout(LIMIT, started.notified()).await.unwrap();
    calling.abort();
    let _ = calling.await;
    go.add_permits(1);
    tokio::time::timeout(LIMIT, done.notified()).await.unwrap();
}
