//! The snapshotters in a plugin graph.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use kevel_contract::{Scope, snapshot::Snapshotters};
use kevel_model::{Labels, Mount, Namespace};
use kevel_plugin::{Graph, PluginStatus, Registry, Report, Settings};
use kevel_snapshot::{native, overlay};

const OVERLAYFS: &str = "io.containerd.snapshotter.v1.overlayfs";

async fn start(root: &Path, table: &str) -> Graph {
    let mut registry = Registry::default();
    registry.add::<native::Plugin>();
    registry.add::<overlay::Plugin>();
    let plugins = BTreeMap::from([(OVERLAYFS.to_owned(), table.parse().unwrap())]);
    registry.start(Settings { root: root.to_owned(), plugins, ..Settings::default() }).await.unwrap()
}

fn overlay_report(graph: &Graph) -> Arc<Report> {
    Arc::clone(graph.reports().iter().find(|report| report.uri() == OVERLAYFS).unwrap())
}

#[tokio::test]
async fn they_declare_what_they_can() {
    let dir = tempfile::tempdir().unwrap();
    if let Err(error) = overlay::supported(dir.path()) {
        eprintln!("skipped: {error}");
        return;
    }
    let graph = start(dir.path(), "slow_chown = true\nupperdir_label = true").await;
    assert_eq!(graph.all::<Snapshotters>().into_keys().collect::<Vec<_>>(), ["native", "overlayfs"]);
    let declared = &overlay_report(&graph).declared;
    let root = dir.path().join(OVERLAYFS);
    assert_eq!(declared.exports["root"], root.to_str().unwrap());
    assert!(declared.capabilities.contains(&"rebase".to_owned()), "{declared:?}");
    assert!(!declared.capabilities.contains(&"only-remap-ids".to_owned()), "{declared:?}");
    let scope = Scope::new(Namespace::k8s());
    let snapshots = &graph.all::<Snapshotters>()["overlayfs"];
    snapshots.prepare(&scope, "key", "", Labels::new()).await.unwrap();
    let labels = snapshots.stat(&scope, "key").await.unwrap().labels;
    assert_eq!(labels[overlay::UPPERDIR_LABEL], root.join("snapshots/1/fs").to_str().unwrap());
    graph.stop().await;
}

#[tokio::test]
async fn overlayfs_skips_where_it_can_not_be() {
    let dir = tempfile::tempdir().unwrap();
    if let Err(error) = overlay::supported(dir.path()) {
        eprintln!("skipped: {error}");
        return;
    }
    let make = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    };
    let options = ["lowerdir", "upperdir", "workdir"].map(|name| format!("{name}={}", make(name)));
    let on = Mount { kind: "overlay".into(), source: "overlay".into(), options: options.into(), ..Mount::default() };
    let mounted = kevel_mount::TempMount::new(&dir.path().join("temp"), &[on]).unwrap();
    let graph = start(mounted.path(), "").await;
    let PluginStatus::Skip(why) = &overlay_report(&graph).status else {
        panic!("{:?}", overlay_report(&graph));
    };
    assert!(why.contains("overlayfs"), "{why}");
    assert_eq!(graph.all::<Snapshotters>().into_keys().collect::<Vec<_>>(), ["native"]);
    graph.stop().await;
}
