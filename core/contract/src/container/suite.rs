//! The conformance suite of container stores. A check fails by panicking with its name.

#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::future::Future;

use kevel_model::{Any, Code, Filters, Labels, Namespace};

use super::{Container, ContainerStore, Runtime};
use crate::Scope;

/// Runs every check, each on a store of its own. The factory answers an empty store and whatever must outlive it.
pub async fn run<F: Future<Output = (ContainerStore, G)>, G>(factory: impl Fn() -> F) {
    macro_rules! checks {
        ($($check:ident),* $(,)?) => { $({
            let (store, guard) = factory().await;
            eprintln!("container suite: {} on {}", stringify!($check), store.target().name);
            $check(&store).await;
            drop((store, guard));
        })* };
    }
    checks!(
        containers_read_back,
        ids_are_unique,
        field_paths_choose,
        identity_does_not_change,
        lists_are_sorted_and_filtered,
        bad_containers_are_refused,
        namespaces_are_apart
    );
}

fn scope() -> Scope {
    Scope::new(Namespace::new("suite").unwrap())
}

fn any(value: &str) -> Any {
    Any::new("types.containerd.io/opencontainers/runtime-spec/1/Spec", value)
}

fn container(id: &str) -> Container {
    Container {
        labels: Labels::from([("id".into(), id.into())]),
        image: "image".into(),
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: Some(any("{}")) },
        spec: Some(any("{\"a\":1}")),
        snapshotter: "native".into(),
        snapshot_key: id.into(),
        extensions: [("x".into(), any("\0\u{1}"))].into(),
        sandbox: "box".into(),
        ..Container::new(id)
    }
}

async fn containers_read_back(store: &ContainerStore) {
    let made = store.create(&scope(), container("a")).await.unwrap();
    assert!(made.created_at > std::time::SystemTime::UNIX_EPOCH);
    let want = Container { created_at: made.created_at, updated_at: made.updated_at, ..container("a") };
    assert_eq!(made, want);
    assert_eq!(store.get(&scope(), "a").await.unwrap(), made);
    store.delete(&scope(), "a").await.unwrap();
    assert_eq!(store.get(&scope(), "a").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.delete(&scope(), "a").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.update(&scope(), container("a"), &[]).await.unwrap_err().code(), Code::NotFound);
}

async fn ids_are_unique(store: &ContainerStore) {
    store.create(&scope(), container("a")).await.unwrap();
    assert_eq!(store.create(&scope(), container("a")).await.unwrap_err().code(), Code::AlreadyExists);
}

async fn field_paths_choose(store: &ContainerStore) {
    let made = store.create(&scope(), container("a")).await.unwrap();
    let new = Container {
        labels: Labels::from([("new".into(), "1".into())]),
        image: "other".into(),
        spec: Some(any("{}")),
        snapshot_key: "moved".into(),
        extensions: [("y".into(), any("2"))].into(),
        ..container("a")
    };
    let check = async |paths: &[&str], want: Container| {
        store.update(&scope(), container("a"), &[]).await.unwrap();
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let after = store.update(&scope(), new.clone(), &paths).await.unwrap();
        let want = Container { created_at: made.created_at, updated_at: after.updated_at, ..want };
        assert_eq!(after, want, "{paths:?}");
        assert!(after.updated_at > made.updated_at);
    };
    let old = || container("a");
    check(&[], new.clone()).await;
    check(&["labels"], Container { labels: new.labels.clone(), ..old() }).await;
    check(&["labels.id"], Container { labels: Labels::new(), ..old() }).await;
    check(&["image", "spec"], Container { image: new.image.clone(), spec: new.spec.clone(), ..old() }).await;
    check(&["snapshotkey"], Container { snapshot_key: "moved".into(), ..old() }).await;
    let both = [("x".to_owned(), any("\0\u{1}")), ("y".to_owned(), any("2"))];
    check(&["extensions.y"], Container { extensions: both.into(), ..old() }).await;
    check(&["extensions"], Container { extensions: new.extensions.clone(), ..old() }).await;
    for path in ["id", "runtime.name", "created_at", "nonsense"] {
        let refused = store.update(&scope(), new.clone(), &[path.into()]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}");
    }
}

async fn identity_does_not_change(store: &ContainerStore) {
    store.create(&scope(), container("a")).await.unwrap();
    let other = Runtime { name: "other".into(), options: None };
    for new in [Container { runtime: other, ..container("a") }, Container { snapshotter: "x".into(), ..container("a") }]
    {
        assert_eq!(store.update(&scope(), new, &[]).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

async fn lists_are_sorted_and_filtered(store: &ContainerStore) {
    for id in ["b", "c", "a"] {
        store.create(&scope(), container(id)).await.unwrap();
    }
    let check = async |filters: &[&str], want: &[&str]| {
        let found = store.list(&scope(), &Filters::parse(filters).unwrap()).await.unwrap();
        assert_eq!(found.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), want, "{filters:?}");
    };
    check(&[], &["a", "b", "c"]).await;
    check(&["id==b", "labels.id==c"], &["b", "c"]).await;
    check(&["runtime.name~=runc,id!=a"], &["b", "c"]).await;
    check(&["image==none"], &[]).await;
}

async fn bad_containers_are_refused(store: &ContainerStore) {
    let good = || container("a");
    for (what, bad) in [
        ("empty id", Container { id: String::new(), ..good() }),
        ("bad id", Container { id: "../a".into(), ..good() }),
        ("no runtime", Container { runtime: Runtime::default(), ..good() }),
        ("no spec", Container { spec: None, ..good() }),
        ("no snapshotter", Container { snapshotter: String::new(), ..good() }),
        ("empty extension", Container { extensions: [(String::new(), any(""))].into(), ..good() }),
        ("long label", Container { labels: Labels::from([("k".into(), "x".repeat(5000))]), ..good() }),
    ] {
        assert_eq!(store.create(&scope(), bad).await.unwrap_err().code(), Code::InvalidArgument, "{what}");
    }
}

async fn namespaces_are_apart(store: &ContainerStore) {
    let other = Scope::new(Namespace::new("other").unwrap());
    store.create(&scope(), container("a")).await.unwrap();
    assert_eq!(store.get(&other, "a").await.unwrap_err().code(), Code::NotFound);
    assert!(store.list(&other, &Filters::default()).await.unwrap().is_empty());
}
