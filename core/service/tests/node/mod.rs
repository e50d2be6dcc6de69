//! A daemon's middle in a test: real stores, served on a socket of its own.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use kevel_client::Remote;
use kevel_content::LocalStore;
use kevel_contract::{
    Scope, call::Target, content::ContentStore, event::EventExchange, metadata::Stores, snapshot::Snapshotter,
    stream::StreamManager,
};
use kevel_database::Database;
use kevel_event::Exchange;
use kevel_metadata::{SCHEMA, SharingPolicy};
use kevel_model::Namespace;
use kevel_plugin::Reports;
use kevel_proto::shim::events::SERVICE as SHIM_EVENTS;
use kevel_service::{
    Offer, containers::Containers, content::Content, controllers::Controller, events, health::Health, images::Images,
    introspection, leases::Leases, mounts::Mounts, namespaces::Namespaces, sandboxes::Store, snapshots::Snapshots,
    streaming, version::Version,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{service::RoutesBuilder, transport::Server};

pub const SNAPSHOTTER: &str = "native";

pub struct Node {
    pub stores: Stores,
    pub events: EventExchange,
    pub streams: StreamManager,
    pub reports: Reports,
    pub directory: TempDir,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Node {
    pub async fn new() -> Self {
        Self::with(Offer::default()).await
    }

    /// A node that serves one more thing.
    pub async fn with(more: Offer) -> Self {
        Self::with_streams(StreamManager::new(Target::local("streams"), streaming::Manager::default()), more).await
    }

    /// A node that serves one more thing, which takes the streams of that manager.
    pub async fn with_streams(streams: StreamManager, more: Offer) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let content = LocalStore::open(&root.join("content")).await.unwrap();
        let content = ContentStore::new(Target::local("local"), content);
        let snapshots = kevel_snapshot::native::open(&root.join("snapshots"), true).await.unwrap();
        let snapshots = Snapshotter::new(Target::local(SNAPSHOTTER), snapshots);
        let events = EventExchange::new(Target::local("events"), Exchange::default());
        let database = Database::open(root.join("meta.redb"), &SCHEMA).unwrap();
        let snapshotters = [(SNAPSHOTTER.to_owned(), snapshots)].into();
        let policy = SharingPolicy::Shared;
        let mounts = kevel_mount::Manager::new(root.join("mounts"), []);
        let stores = kevel_metadata::open(database, content, snapshotters, mounts, events.clone(), policy).unwrap();
        let stop = CancellationToken::new();
        let node = Self { stores, events, streams, reports: Reports::default(), directory, stop };
        node.serve(more);
        node
    }

    fn serve(&self, more: Offer) {
        let stores = self.stores.clone();
        let shims = Arc::new(events::ShimEvents(self.events.clone()));
        let introspection = introspection::introspection(self.directory.path(), self.reports.clone(), None);
        let offer = Containers(stores.containers)
            .offer()
            .and(Content(stores.content).offer())
            .and(Controller(Arc::default()).offer())
            .and(events::Events(self.events.clone()).offer().and_ttrpc(SHIM_EVENTS, shims))
            .and(Health.offer())
            .and(Images(stores.images).offer())
            .and(introspection::Introspection(introspection).offer())
            .and(Leases(stores.leases).offer())
            .and(Mounts(stores.mounts).offer())
            .and(Namespaces(stores.namespaces).offer())
            .and(Snapshots(stores.snapshotters).offer())
            .and(Store(stores.sandboxes).offer())
            .and(streaming::Streaming(self.streams.clone()).offer())
            .and(Version { version: "1.2.3".to_owned(), revision: "abc".to_owned() }.offer())
            .and(more);
        let mut routes = RoutesBuilder::default();
        offer.add_grpc(&mut routes);
        let listener = UnixListener::bind(self.socket()).unwrap();
        let served = Server::builder()
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), self.stop.clone().cancelled_owned());
        tokio::spawn(served);
        let mut ttrpc = kevel_ttrpc::Server::new().drain(Duration::ZERO);
        offer.add_ttrpc(&mut ttrpc).unwrap();
        let listener = UnixListener::bind(self.ttrpc_socket()).unwrap();
        let stop = self.stop.clone();
        tokio::spawn(async move { ttrpc.serve(listener, stop).await });
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("grpc.sock")
    }

    pub fn ttrpc_socket(&self) -> PathBuf {
        self.directory.path().join("ttrpc.sock")
    }

    pub fn remote(&self) -> Remote {
        Remote::new("remote", self.socket().to_str().unwrap()).unwrap()
    }
}

pub fn scope(namespace: &str) -> Scope {
    Scope::new(Namespace::new(namespace).unwrap())
}
