//! The plugins in a graph: metadata, scheduler and lease manager start in order, and the scheduler collects by itself.

use kevel_contract::{
    Scope,
    lease::Leases,
    metadata::{Garbage, Metadata},
};
use kevel_metadata::{LeasePlugin, Plugin, Scheduler};
use kevel_model::{Filters, Labels, Namespace};
use kevel_plugin::{Registry, Settings};

#[tokio::test(flavor = "multi_thread")]
async fn the_graph_starts_and_the_scheduler_collects() {
    let directory = tempfile::tempdir().unwrap();
    let mut registry = Registry::default();
    registry.add::<LeasePlugin>();
    registry.add::<Scheduler>();
    registry.add::<Plugin>();
    registry.add::<kevel_content::Plugin>();
    registry.add::<kevel_event::Plugin>();
    let settings =
        Settings { root: directory.path().join("root"), state: directory.path().join("state"), ..Settings::default() };
    let graph = registry.start(settings).await.unwrap();
    let stores = graph.all::<Metadata>().remove("bolt").unwrap();
    assert_eq!(graph.all::<Garbage>().len(), 1);
    let leases = graph.all::<Leases>().remove("manager").unwrap();
    let space = Scope::new(Namespace::k8s());
    leases.create(&space, "lease", Labels::new()).await.unwrap();
    stores.content.put(&space, "loose", "data".into(), Labels::new()).await.unwrap();
    // A hundred changes, and what nothing keeps goes without anybody asking.
    for n in 0..100 {
        leases.create(&space, &format!("lease-{n}"), Labels::new()).await.unwrap();
    }
    while !stores.content.list(&space, &Filters::default()).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(directory.path().join("root/io.containerd.metadata.v1.bolt/meta.redb").exists());
    drop(stores);
    graph.stop().await;
}
