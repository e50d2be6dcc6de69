//! The conformance suite of namespace stores. That only empty ones can be deleted is shown where they can be filled. A
//! check fails by panicking with its name.

#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::future::Future;

use kevel_model::{Code, Labels, Namespace};

use super::NamespaceStore;

/// Runs every check, each on a store of its own. The factory answers an empty store and whatever must outlive it.
pub async fn run<F: Future<Output = (NamespaceStore, G)>, G>(factory: impl Fn() -> F) {
    macro_rules! checks {
        ($($check:ident),* $(,)?) => { $({
            let (store, guard) = factory().await;
            eprintln!("namespace suite: {} on {}", stringify!($check), store.target().name);
            $check(&store).await;
            drop((store, guard));
        })* };
    }
    checks!(namespaces_come_and_go, labels_change);
}

fn name(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn namespaces_come_and_go(store: &NamespaceStore) {
    assert_eq!(store.get(&name("b")).await.unwrap_err().code(), Code::NotFound);
    store.create(&name("b"), labels(&[("x", "1")])).await.unwrap();
    store.create(&name("a"), Labels::new()).await.unwrap();
    assert_eq!(store.create(&name("b"), Labels::new()).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(store.get(&name("b")).await.unwrap(), labels(&[("x", "1")]));
    let all = store.list().await.unwrap();
    assert_eq!(all, [(name("a"), Labels::new()), (name("b"), labels(&[("x", "1")]))]);
    store.delete(&name("b")).await.unwrap();
    assert_eq!(store.delete(&name("b")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.list().await.unwrap().len(), 1);
}

async fn labels_change(store: &NamespaceStore) {
    let long = labels(&[("k", &"x".repeat(5000))]);
    assert_eq!(store.create(&name("a"), long).await.unwrap_err().code(), Code::InvalidArgument);
    store.create(&name("a"), labels(&[("x", "1"), ("y", "2")])).await.unwrap();
    let some = store.update(&name("a"), labels(&[("x", "9"), ("z", "3")]), &["labels.x".into()]).await.unwrap();
    assert_eq!(some, labels(&[("x", "9"), ("y", "2")]));
    let all = store.update(&name("a"), labels(&[("z", "3")]), &[]).await.unwrap();
    assert_eq!(all, labels(&[("z", "3")]));
    assert_eq!(store.get(&name("a")).await.unwrap(), all);
    assert_eq!(store.update(&name("none"), Labels::new(), &[]).await.unwrap_err().code(), Code::NotFound);
}
