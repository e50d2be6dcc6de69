//! The conformance suite of sandbox stores. A check fails by panicking with its name.

#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::future::Future;

use kevel_model::{Any, Code, Filters, Labels, Namespace};

use super::{Sandbox, SandboxStore};
use crate::{Scope, container::Runtime};

/// Runs every check, each on a store of its own. The factory answers an empty store and whatever must outlive it.
pub async fn run<F: Future<Output = (SandboxStore, G)>, G>(factory: impl Fn() -> F) {
    macro_rules! checks {
        ($($check:ident),* $(,)?) => { $({
            let (store, guard) = factory().await;
            eprintln!("sandbox suite: {} on {}", stringify!($check), store.target().name);
            $check(&store).await;
            drop((store, guard));
        })* };
    }
    checks!(sandboxes_read_back, field_paths_choose, lists_are_sorted_and_filtered, bad_ids_are_refused);
}

fn scope() -> Scope {
    Scope::new(Namespace::new("suite").unwrap())
}

fn sandbox(id: &str) -> Sandbox {
    Sandbox {
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: Some(Any::new("o", "1")) },
        spec: Some(Any::new("s", "2")),
        labels: Labels::from([("id".into(), id.into())]),
        extensions: [("x".into(), Any::new("e", "3"))].into(),
        sandboxer: "shim".into(),
        ..Sandbox::new(id)
    }
}

async fn sandboxes_read_back(store: &SandboxStore) {
    let made = store.create(&scope(), sandbox("a")).await.unwrap();
    assert!(made.created_at > std::time::SystemTime::UNIX_EPOCH);
    assert_eq!(made, Sandbox { created_at: made.created_at, updated_at: made.updated_at, ..sandbox("a") });
    assert_eq!(store.get(&scope(), "a").await.unwrap(), made);
    assert_eq!(store.create(&scope(), sandbox("a")).await.unwrap_err().code(), Code::AlreadyExists);
    let other = Scope::new(Namespace::new("other").unwrap());
    assert_eq!(store.get(&other, "a").await.unwrap_err().code(), Code::NotFound);
    store.delete(&scope(), "a").await.unwrap();
    assert_eq!(store.get(&scope(), "a").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.delete(&scope(), "a").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.update(&scope(), sandbox("a"), &[]).await.unwrap_err().code(), Code::NotFound);
}

async fn field_paths_choose(store: &SandboxStore) {
    store.create(&scope(), sandbox("a")).await.unwrap();
    let new = Sandbox {
        labels: Labels::from([("new".into(), "1".into())]),
        spec: None,
        extensions: [("y".into(), Any::new("e", "4"))].into(),
        ..sandbox("a")
    };
    let check = async |paths: &[&str], want: Sandbox| {
        store.update(&scope(), sandbox("a"), &[]).await.unwrap();
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let after = store.update(&scope(), new.clone(), &paths).await.unwrap();
        assert_eq!(after, Sandbox { created_at: after.created_at, updated_at: after.updated_at, ..want }, "{paths:?}");
        assert_eq!(store.get(&scope(), "a").await.unwrap(), after);
    };
    check(&[], new.clone()).await;
    check(&["labels"], Sandbox { labels: new.labels.clone(), ..sandbox("a") }).await;
    let both = [("x".to_owned(), Any::new("e", "3")), ("y".to_owned(), Any::new("e", "4"))];
    check(&["extensions.y"], Sandbox { extensions: both.into(), ..sandbox("a") }).await;
    check(&["spec"], Sandbox { spec: None, ..sandbox("a") }).await;
    let refused = store.update(&scope(), new.clone(), &["id".into()]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

async fn lists_are_sorted_and_filtered(store: &SandboxStore) {
    for id in ["b", "a"] {
        store.create(&scope(), sandbox(id)).await.unwrap();
    }
    let check = async |filters: &[&str], want: &[&str]| {
        let found = store.list(&scope(), &Filters::parse(filters).unwrap()).await.unwrap();
        assert_eq!(found.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), want, "{filters:?}");
    };
    check(&[], &["a", "b"]).await;
    check(&["labels.id==b"], &["b"]).await;
    check(&["sandboxer==none"], &[]).await;
}

async fn bad_ids_are_refused(store: &SandboxStore) {
    for id in ["", "a/b", "."] {
        assert_eq!(store.create(&scope(), sandbox(id)).await.unwrap_err().code(), Code::InvalidArgument, "{id:?}");
    }
}
