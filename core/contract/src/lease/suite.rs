//! The conformance suite of lease managers: records only. That leases keep things is shown where things are collected.
//! A check fails by panicking with its name.

#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::future::Future;

use kevel_model::{Code, Digest, Filters, Labels, Namespace};

use super::{LABEL_EXPIRE, LeaseManager, Resource};
use crate::Scope;

/// Runs every check, each on a manager of its own. The factory answers an empty one and whatever must outlive it.
pub async fn run<F: Future<Output = (LeaseManager, G)>, G>(factory: impl Fn() -> F) {
    macro_rules! checks {
        ($($check:ident),* $(,)?) => { $({
            let (manager, guard) = factory().await;
            eprintln!("lease suite: {} on {}", stringify!($check), manager.target().name);
            $check(&manager).await;
            drop((manager, guard));
        })* };
    }
    checks!(leases_come_and_go, resources_come_and_go, lists_are_sorted_and_filtered, bad_input_is_refused);
}

fn scope() -> Scope {
    Scope::new(Namespace::new("suite").unwrap())
}

fn resource(kind: &str, id: &str) -> Resource {
    Resource { kind: kind.into(), id: id.into() }
}

async fn leases_come_and_go(manager: &LeaseManager) {
    let labels = Labels::from([("a".into(), "1".into())]);
    let lease = manager.create(&scope(), "one", labels.clone()).await.unwrap();
    assert_eq!((lease.id.as_str(), &lease.labels), ("one", &labels));
    assert_eq!(manager.create(&scope(), "one", Labels::new()).await.unwrap_err().code(), Code::AlreadyExists);
    let first = manager.create(&scope(), "", Labels::new()).await.unwrap();
    let second = manager.create(&scope(), "", Labels::new()).await.unwrap();
    assert!(!first.id.is_empty() && first.id != second.id);
    assert_eq!(manager.list(&scope(), &Filters::default()).await.unwrap().len(), 3);
    manager.delete(&scope(), "one", false).await.unwrap();
    manager.delete(&scope(), &first.id, true).await.unwrap();
    assert_eq!(manager.delete(&scope(), "one", false).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(manager.list(&scope(), &Filters::default()).await.unwrap(), [second]);
}

async fn resources_come_and_go(manager: &LeaseManager) {
    manager.create(&scope(), "one", Labels::new()).await.unwrap();
    let digest = Digest::sha256(b"x");
    let all = [
        resource("content", digest.as_str()),
        resource("images", "i"),
        resource("ingests", "layer-1"),
        resource("snapshots/native", "key"),
    ];
    for resource in all.iter().rev().chain(&all) {
        manager.add(&scope(), "one", resource.clone()).await.unwrap(); // adding again is fine
    }
    let mut found = manager.resources(&scope(), "one").await.unwrap();
    found.sort();
    assert_eq!(found, all);
    for _ in 0..2 {
        manager.remove(&scope(), "one", all[1].clone()).await.unwrap(); // removing again is fine
    }
    assert_eq!(manager.resources(&scope(), "one").await.unwrap().len(), 3);
    assert_eq!(manager.add(&scope(), "none", all[0].clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(manager.remove(&scope(), "none", all[0].clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(manager.resources(&scope(), "none").await.unwrap_err().code(), Code::NotFound);
    manager.delete(&scope(), "one", false).await.unwrap();
    manager.create(&scope(), "one", Labels::new()).await.unwrap();
    assert!(manager.resources(&scope(), "one").await.unwrap().is_empty(), "a new lease keeps nothing");
}

async fn lists_are_sorted_and_filtered(manager: &LeaseManager) {
    for id in ["b", "a"] {
        manager.create(&scope(), id, Labels::from([("of".into(), id.into())])).await.unwrap();
    }
    let check = async |filters: &[&str], want: &[&str]| {
        let found = manager.list(&scope(), &Filters::parse(filters).unwrap()).await.unwrap();
        assert_eq!(found.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>(), want, "{filters:?}");
    };
    check(&[], &["a", "b"]).await;
    check(&["id==a"], &["a"]).await;
    check(&["labels.of==b"], &["b"]).await;
}

async fn bad_input_is_refused(manager: &LeaseManager) {
    let soon = Labels::from([(LABEL_EXPIRE.into(), "soon".into())]);
    assert_eq!(manager.create(&scope(), "one", soon).await.unwrap_err().code(), Code::InvalidArgument);
    manager.create(&scope(), "one", Labels::new()).await.unwrap();
    for (bad, code) in [
        (resource("content", "no digest"), Code::InvalidArgument),
        (resource("snapshots/native", ""), Code::InvalidArgument),
        (resource("volumes", "v"), Code::Unimplemented),
    ] {
        assert_eq!(manager.add(&scope(), "one", bad.clone()).await.unwrap_err().code(), code, "{bad:?}");
    }
}
