//! The conformance suite of image stores. A check fails by panicking with its name.

#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::future::Future;

use kevel_model::{Code, Descriptor, Digest, Filters, Labels, Namespace, media_type};

use super::{Delete, Image, ImageStore};
use crate::Scope;

/// Runs every check, each on a store of its own. The factory answers an empty store and whatever must outlive it.
pub async fn run<F: Future<Output = (ImageStore, G)>, G>(factory: impl Fn() -> F) {
    macro_rules! checks {
        ($($check:ident),* $(,)?) => { $({
            let (store, guard) = factory().await;
            eprintln!("image suite: {} on {}", stringify!($check), store.target().name);
            $check(&store).await;
            drop((store, guard));
        })* };
    }
    checks!(
        images_read_back,
        names_are_unique,
        field_paths_choose,
        lists_are_sorted_and_filtered,
        deletes_can_name_a_target,
        bad_images_are_refused,
        namespaces_are_apart
    );
}

fn scope() -> Scope {
    Scope::new(Namespace::new("suite").unwrap())
}

fn target(seed: &str) -> Descriptor {
    let mut target = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(seed.as_bytes()), 7);
    target.annotations.insert("a".into(), seed.into());
    target
}

fn image(name: &str) -> Image {
    Image::new(name, target(name), Labels::from([("name".into(), name.into())]))
}

async fn images_read_back(store: &ImageStore) {
    let made = store.create(&scope(), image("a")).await.unwrap();
    assert!(made.created_at > std::time::SystemTime::UNIX_EPOCH && made.created_at == made.updated_at);
    assert_eq!((&made.target, &made.labels), (&target("a"), &image("a").labels));
    assert_eq!(store.get(&scope(), "a").await.unwrap(), made);
    store.delete(&scope(), "a", Delete::default()).await.unwrap();
    assert_eq!(store.get(&scope(), "a").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.delete(&scope(), "a", Delete::default()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.update(&scope(), image("a"), &[]).await.unwrap_err().code(), Code::NotFound);
}

async fn names_are_unique(store: &ImageStore) {
    store.create(&scope(), image("a")).await.unwrap();
    let again = Image::new("a", target("other"), Labels::new());
    assert_eq!(store.create(&scope(), again).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(store.get(&scope(), "a").await.unwrap().target, target("a"));
}

async fn field_paths_choose(store: &ImageStore) {
    let made = store.create(&scope(), image("a")).await.unwrap();
    let update = || Image::new("a", target("b"), Labels::from([("new".into(), "1".into())]));
    let check = async |paths: &[&str], labels: &[&str], seed: &str, annotation: Option<&str>| {
        store.update(&scope(), image("a"), &[]).await.unwrap();
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let after = store.update(&scope(), update(), &paths).await.unwrap();
        assert_eq!(after.labels.keys().map(String::as_str).collect::<Vec<_>>(), labels, "{paths:?}");
        assert_eq!(after.target.digest, target(seed).digest, "{paths:?}");
        assert_eq!(after.target.annotations.get("a").map(String::as_str), annotation, "{paths:?}");
        assert_eq!(after.created_at, made.created_at);
        assert!(after.updated_at > made.updated_at);
        assert_eq!(store.get(&scope(), "a").await.unwrap(), after);
    };
    check(&[], &["new"], "b", Some("b")).await;
    check(&["labels"], &["new"], "a", Some("a")).await;
    check(&["labels.new"], &["name", "new"], "a", Some("a")).await;
    check(&["labels.name"], &[], "a", Some("a")).await;
    check(&["target"], &["name"], "b", Some("b")).await;
    check(&["annotations.a"], &["name"], "a", Some("b")).await;
    let refused = store.update(&scope(), update(), &["name".into()]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

async fn lists_are_sorted_and_filtered(store: &ImageStore) {
    for name in ["b", "c", "a"] {
        store.create(&scope(), image(name)).await.unwrap();
    }
    let check = async |filters: &[&str], want: &[&str]| {
        let found = store.list(&scope(), &Filters::parse(filters).unwrap()).await.unwrap();
        assert_eq!(found.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), want, "{filters:?}");
    };
    check(&[], &["a", "b", "c"]).await;
    check(&["name==b"], &["b"]).await;
    check(&["name==b", "labels.name==c"], &["b", "c"]).await;
    check(&[&format!("target.digest=={}", target("a").digest)], &["a"]).await;
    check(&["name==d"], &[]).await;
}

async fn deletes_can_name_a_target(store: &ImageStore) {
    store.create(&scope(), image("a")).await.unwrap();
    let delete = |seed: &str| Delete { target: Some(target(seed).digest), sync: true };
    assert_eq!(store.delete(&scope(), "a", delete("b")).await.unwrap_err().code(), Code::NotFound);
    store.delete(&scope(), "a", delete("a")).await.unwrap();
}

async fn bad_images_are_refused(store: &ImageStore) {
    let long = Labels::from([("key".into(), "x".repeat(5000))]);
    for bad in [Image { name: String::new(), ..image("a") }, Image { labels: long, ..image("a") }] {
        assert_eq!(store.create(&scope(), bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(store.list(&scope(), &Filters::default()).await.unwrap().is_empty());
}

async fn namespaces_are_apart(store: &ImageStore) {
    let other = Scope::new(Namespace::new("other").unwrap());
    store.create(&scope(), image("a")).await.unwrap();
    assert_eq!(store.get(&other, "a").await.unwrap_err().code(), Code::NotFound);
    store.create(&other, image("a")).await.unwrap();
    store.delete(&other, "a", Delete::default()).await.unwrap();
    assert!(store.get(&scope(), "a").await.is_ok());
}
