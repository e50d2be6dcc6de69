//! The store in a plugin graph.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use kevel_contract::{Scope, content::Contents};
use kevel_model::{Labels, Namespace};
use kevel_plugin::{Graph, Registry, Settings};

const URI: &str = "io.containerd.content.v1.content";

async fn start(root: &Path, table: &str) -> Graph {
    let mut registry = Registry::default();
    registry.add::<kevel_content::Plugin>();
    let plugins = BTreeMap::from([(URI.to_owned(), table.parse().unwrap())]);
    registry.start(Settings { root: root.to_owned(), plugins, ..Settings::default() }).await.unwrap()
}

#[tokio::test]
async fn its_root_is_its_own_or_configured() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    for (table, root) in
        [(String::new(), dir.path().join(URI)), (format!("root_path = {:?}", other.to_str().unwrap()), other)]
    {
        let graph = start(dir.path(), &table).await;
        assert_eq!(graph.reports()[0].declared.exports["root"], root.to_str().unwrap());
        let store = &graph.all::<Contents>()["content"];
        let data = Bytes::from_static(b"x");
        let digest = store.put(&Scope::new(Namespace::k8s()), "x", data, Labels::new()).await.unwrap();
        assert!(root.join("blobs/sha256").join(digest.encoded()).exists());
        graph.stop().await;
    }
}
