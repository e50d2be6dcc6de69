//! The differ over a real content store and real mounts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::Mutex,
};

use async_trait::async_trait;
use bytes::Bytes;
use harness::{Archive, Detail, tree};
use kevel_content::LocalStore;
use kevel_contract::{
    Scope,
    call::Target,
    content::{Backend, Begin, Blob, ContentStore, Info, Ingest, Status},
    diff::{Apply, Compare, Differ},
};
use kevel_diff::{layer::Ratio, walking::Walking};
use kevel_model::{Code, Descriptor, Digest, Filters, Labels, Mount, Result, media_type};

/// The store on disk with labels in memory, which in the daemon are the metadata's business.
struct Labelled {
    store: ContentStore,
    labels: Mutex<HashMap<Digest, Labels>>,
}

#[async_trait]
impl Backend for Labelled {
    async fn info(&self, scope: &Scope, digest: &Digest) -> Result<Info> {
        let mut info = self.store.info(scope, digest).await?;
        info.labels = self.labels.lock().unwrap().get(digest).cloned().unwrap_or_default();
        Ok(info)
    }
    async fn update(&self, scope: &Scope, info: Info, _: &[String]) -> Result<Info> {
        self.labels.lock().unwrap().entry(info.digest.clone()).or_default().extend(info.labels);
        self.info(scope, &info.digest).await
    }
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>> {
        self.store.list(scope, filters).await
    }
    async fn delete(&self, scope: &Scope, digest: &Digest) -> Result<()> {
        self.store.delete(scope, digest).await
    }
    async fn open(&self, scope: &Scope, digest: &Digest) -> Result<Box<dyn Blob>> {
        self.store.open(scope, digest).await
    }
    async fn status(&self, scope: &Scope, reference: &str) -> Result<Status> {
        self.store.status(scope, reference).await
    }
    async fn statuses(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Status>> {
        self.store.statuses(scope, filters).await
    }
    async fn begin(&self, scope: &Scope, begin: Begin) -> Result<Box<dyn Ingest>> {
        self.store.begin(scope, begin).await
    }
    async fn abort(&self, scope: &Scope, reference: &str) -> Result<()> {
        self.store.abort(scope, reference).await
    }
}

struct World {
    dir: tempfile::TempDir,
    content: ContentStore,
    differ: Differ,
    scope: Scope,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(&dir.path().join("content")).await.unwrap();
        let store = ContentStore::new(Target::local("store"), store);
        let content = ContentStore::new(Target::local("content"), Labelled { store, labels: Mutex::default() });
        let walking = Walking::new(content.clone(), dir.path().join("mounts"));
        let differ = Differ::new(Target::local("walking"), walking);
        Self { dir, content, differ, scope: Scope::new(kevel_model::Namespace::k8s()) }
    }

    fn directory(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn layer(&self, archive: &[u8]) -> Descriptor {
        let digest =
            self.content.put(&self.scope, "layer", Bytes::copy_from_slice(archive), Labels::new()).await.unwrap();
        Descriptor::new(media_type::OCI_LAYER, digest, archive.len() as u64)
    }

    async fn apply(&self, layer: &Descriptor, mounts: &[Mount]) -> Result<Descriptor> {
        self.differ.apply(&self.scope, layer, mounts, Apply { sync_fs: true, ..Apply::default() }).await
    }

    /// Nothing is left mounted.
    fn assert_clean(&self) {
        let mounts = self.dir.path().join("mounts");
        let left = fs::read_dir(mounts).map_or(0, Iterator::count);
        assert_eq!(left, 0, "temporary mounts are left");
    }
}

fn mount(kind: &str, source: &str, options: &[String]) -> Mount {
    Mount { kind: kind.into(), source: source.into(), options: options.to_vec(), ..Mount::default() }
}

fn bind(source: &str, access: &str) -> Mount {
    mount("bind", source, &["rbind".into(), access.into()])
}

fn overlay(lowers: &[&str], upper: &str, work: &str) -> Mount {
    let options = [format!("lowerdir={}", lowers.join(":")), format!("upperdir={upper}"), format!("workdir={work}")];
    mount("overlay", "overlay", &options)
}

fn sample() -> Vec<u8> {
    Archive::new().dir("d").file("d/a", "new").file(".wh.gone", "").end()
}

#[tokio::test]
async fn layers_go_where_mounts_lead() {
    let world = World::new().await;
    let archive = sample();
    let layer = world.layer(&archive).await;
    let diff = Descriptor::new(media_type::OCI_LAYER, Digest::sha256(&archive), archive.len() as u64);
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| world.directory(name));
    fs::write(Path::new(&lower).join("gone"), "").unwrap();
    assert_eq!(world.apply(&layer, &[overlay(&[&lower], &upper, &work)]).await.unwrap(), diff);
    let hidden = fs::symlink_metadata(Path::new(&upper).join("gone")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    assert!(Path::new(&lower).join("gone").exists());

    assert_eq!(world.apply(&layer, &[bind(&lower, "rw")]).await.unwrap(), diff);
    assert_eq!(tree(Path::new(&lower), Detail::Content).len(), 2);
    world.assert_clean();
}

#[tokio::test]
async fn other_mounts_are_made_for_the_occasion() {
    let world = World::new().await;
    let layer = world.layer(&sample()).await;
    let [source, inner] = ["source", "source/inner"].map(|name| world.directory(name));
    fs::write(Path::new(&source).join("gone"), "").unwrap();
    let two = [bind(&source, "rw"), Mount { target: "inner".into(), ..bind(&inner, "rw") }];
    match world.apply(&layer, &two).await {
        Ok(_) => assert!(Path::new(&source).join("d/a").exists() && !Path::new(&source).join("gone").exists()),
        Err(error) => panic!("{}", error.chain()),
    }
    let error = world.apply(&layer, &[bind(&source, "ro")]).await.unwrap_err();
    assert!(error.chain().contains("Read-only"), "{}", error.chain());
    world.assert_clean();
}

#[tokio::test]
async fn what_can_not_be_applied_says_why() {
    let world = World::new().await;
    let root = world.directory("root");
    let mounts = [bind(&root, "rw")];
    let mut layer = world.layer(&sample()).await;
    layer.media_type += "+encrypted";
    assert_eq!(world.apply(&layer, &mounts).await.unwrap_err().code(), Code::Unimplemented);
    let missing = Descriptor::new(media_type::OCI_LAYER, Digest::sha256(b"?"), 1);
    assert_eq!(world.apply(&missing, &mounts).await.unwrap_err().code(), Code::NotFound);
    let bad = world.layer(&Archive::new().file("../a", "").end()).await;
    let error = world.apply(&bad, &mounts).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.chain().contains("\"../a\": the path leads out of the root"), "{}", error.chain());
    let mut short = world.layer(&sample()).await;
    short.size += 1;
    assert_eq!(world.apply(&short, &mounts).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_comparison_is_a_blob_that_can_be_applied() {
    let world = World::new().await;
    let [lower, upper, work, root] = ["lower", "upper", "work", "root"].map(|name| world.directory(name));
    fs::write(Path::new(&lower).join("gone"), "").unwrap();
    fs::write(Path::new(&root).join("gone"), "").unwrap();
    let below = [bind(&lower, "ro")];
    let above = [overlay(&[&lower], &upper, &work)];
    world.apply(&world.layer(&sample()).await, &above).await.unwrap();
    for (media_type, kind) in [
        ("", media_type::OCI_LAYER_GZIP),
        (media_type::OCI_LAYER, media_type::OCI_LAYER),
        (media_type::OCI_LAYER_ZSTD, media_type::OCI_LAYER_ZSTD),
    ] {
        let labels: Labels = [("mine".to_owned(), "1".to_owned())].into_iter().collect();
        let compare = || Compare { media_type: media_type.into(), labels: labels.clone(), ..Compare::default() };
        let made = world.differ.compare(&world.scope, &below, &above, compare()).await.unwrap();
        assert_eq!(made.media_type, kind);
        // Made again it is found again, and no ingest is left behind.
        assert_eq!(world.differ.compare(&world.scope, &below, &above, compare()).await.unwrap(), made);
        let info = world.content.info(&world.scope, &made.digest).await.unwrap();
        assert_eq!((info.size, info.labels.get("mine").map(String::as_str)), (made.size, Some("1")));
        let left = world.content.statuses(&world.scope, &Filters::default()).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        let applied = world.apply(&made, &[bind(&root, "rw")]).await.unwrap();
        let blob = world.content.read(&world.scope, &made.digest, 1 << 20).await.unwrap();
        assert_eq!(info.labels.get("containerd.io/uncompressed"), Some(&applied.digest.to_string()));
        assert_eq!(applied.digest, kevel_diff::layer::diff_id(&blob[..], Ratio::default()).unwrap());
        assert!(!Path::new(&root).join("gone").exists());
        assert_eq!(fs::read_to_string(Path::new(&root).join("d/a")).unwrap(), "new");
    }
    // The whole tree, when there is nothing below.
    let all = world.differ.compare(&world.scope, &[], &below, Compare::default()).await.unwrap();
    let fresh = world.directory("fresh");
    world.apply(&all, &[bind(&fresh, "rw")]).await.unwrap();
    assert_eq!(tree(Path::new(&fresh), Detail::All), tree(Path::new(&lower), Detail::All));
    let unknown = Compare { media_type: "application/vnd.erofs.layer.v1".into(), ..Compare::default() };
    let error = world.differ.compare(&world.scope, &below, &above, unknown).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    world.assert_clean();
}
