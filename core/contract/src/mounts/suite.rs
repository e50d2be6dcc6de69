//! The conformance suite of mount managers. It mounts tmpfs, so the manager has to run as root and see the same mounts as
//! the suite. A check fails by panicking with its name.

#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::{future::Future, path::Path};

use kevel_model::{Code, Filters, Labels, Mount, Namespace};

use super::{Activate, Activation, MountManager};
use crate::Scope;

/// Runs every check, each on a manager of its own. The factory answers an empty one and whatever must outlive it.
pub async fn run<F: Future<Output = (MountManager, G)>, G>(factory: impl Fn() -> F) {
    macro_rules! checks {
        ($($check:ident),* $(,)?) => { $({
            let (manager, guard) = factory().await;
            eprintln!("mounts suite: {} on {}", stringify!($check), manager.target().name);
            $check(&manager).await;
            drop((manager, guard));
        })* };
    }
    checks!(activations_come_and_go, a_look_inside, names_are_unique, labels_change, refused_requests_leave_nothing);
}

fn scope(namespace: &str) -> Scope {
    Scope::new(Namespace::new(namespace).unwrap())
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|&option| option.to_owned()).collect();
    Mount { kind: kind.to_owned(), source: source.to_owned(), target: String::new(), options }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A tmpfs, and a directory of it that is left to the caller.
fn bound() -> Activate {
    let made = "X-containerd.mkdir.path={{ mount 0 }}/inside";
    let bind = mount("format/mkdir/bind", "{{ mount 0 }}/inside", &[made, "rbind"]);
    let mounts = vec![mount("tmpfs", "tmpfs", &[]), bind];
    Activate { mounts, labels: labels(&[("a", "1")]), temporary: false }
}

async fn names(manager: &MountManager, scope: &Scope, filters: &[&str]) -> Vec<String> {
    let filters: Vec<_> = filters.iter().map(|&filter| filter.to_owned()).collect();
    let found = manager.list(scope, &Filters::parse(&filters).unwrap()).await.unwrap();
    found.into_iter().map(|activation| activation.name).collect()
}

async fn activations_come_and_go(manager: &MountManager) {
    let scope = scope("one");
    assert_eq!(manager.info(&scope, "m").await.unwrap_err().code(), Code::NotFound);
    let made = manager.activate(&scope, "m", bound()).await.unwrap();
    assert_eq!((made.name.as_str(), &made.labels, made.active.len()), ("m", &labels(&[("a", "1")]), 1));
    let point = &made.active[0].mount_point;
    assert_eq!(made.system, [mount("bind", &format!("{point}/inside"), &["rbind"])]);
    assert!(Path::new(point).join("inside").is_dir());
    assert_eq!(manager.info(&scope, "m").await.unwrap(), made);
    assert_eq!(manager.list(&scope, &Filters::default()).await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(names(manager, &scope, &["name==m", "name==x"]).await, ["m"]);
    assert_eq!(names(manager, &scope, &["labels.a==2"]).await, [""; 0]);
    manager.deactivate(&scope, "m").await.unwrap();
    assert!(!Path::new(point).exists(), "{point} is left");
    assert_eq!(manager.deactivate(&scope, "m").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(names(manager, &scope, &[]).await, [""; 0]);
}

async fn a_look_inside(manager: &MountManager) {
    let scope = scope("one");
    let made = manager.activate(&scope, "m", Activate { temporary: true, ..bound() }).await.unwrap();
    assert_eq!(made.active.len(), 2);
    assert_eq!(made.system, [mount("bind", &made.active[1].mount_point, &["rbind"])]);
    manager.deactivate(&scope, "m").await.unwrap();
    assert!(!Path::new(&made.active[1].mount_point).exists());
}

async fn names_are_unique(manager: &MountManager) {
    let (one, two) = (scope("one"), scope("two"));
    let made = manager.activate(&one, "m", bound()).await.unwrap();
    assert_eq!(manager.activate(&one, "m", bound()).await.unwrap_err().code(), Code::AlreadyExists);
    let other = manager.activate(&two, "m", bound()).await.unwrap();
    assert_ne!(made.active[0].mount_point, other.active[0].mount_point);
    manager.deactivate(&one, "m").await.unwrap();
    assert_eq!(manager.info(&two, "m").await.unwrap(), other);
    manager.deactivate(&two, "m").await.unwrap();
}

async fn labels_change(manager: &MountManager) {
    let scope = scope("one");
    manager.activate(&scope, "m", bound()).await.unwrap();
    let with = |pairs: &[(&str, &str)]| Activation { name: "m".into(), labels: labels(pairs), ..Activation::default() };
    let some = manager.update(&scope, with(&[("b", "2")]), &["labels.b".into()]).await.unwrap();
    assert_eq!(some.labels, labels(&[("a", "1"), ("b", "2")]));
    assert_eq!(some.active.len(), 1);
    let all = manager.update(&scope, with(&[("c", "3")]), &[]).await.unwrap();
    assert_eq!(manager.info(&scope, "m").await.unwrap(), all);
    assert_eq!(all.labels, labels(&[("c", "3")]));
    let refused = manager.update(&scope, with(&[]), &["system".into()]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let missing = Activation { name: "x".into(), ..Activation::default() };
    assert_eq!(manager.update(&scope, missing, &[]).await.unwrap_err().code(), Code::NotFound);
    manager.deactivate(&scope, "m").await.unwrap();
}

async fn refused_requests_leave_nothing(manager: &MountManager) {
    let scope = scope("one");
    let plain = Activate { mounts: vec![mount("tmpfs", "tmpfs", &[])], ..Activate::default() };
    let outside = mount("mkdir/tmpfs", "tmpfs", &["X-containerd.mkdir.path=/etc/x"]);
    let late = Activate { mounts: vec![plain.mounts[0].clone(), outside], temporary: true, ..Activate::default() };
    let long = Activate { labels: labels(&[("k", &"x".repeat(5000))]), ..bound() };
    for (name, activate, code) in [
        ("", bound(), Code::InvalidArgument),
        ("m", plain.clone(), Code::Unimplemented),
        ("m", Activate::default(), Code::InvalidArgument),
        ("m", Activate { mounts: vec![plain.mounts[0].clone(); 300], temporary: true, ..plain }, Code::InvalidArgument),
        ("m", late, Code::InvalidArgument),
        ("m", long, Code::InvalidArgument),
    ] {
        assert_eq!(manager.activate(&scope, name, activate).await.unwrap_err().code(), code);
        assert_eq!(names(manager, &scope, &[]).await, [""; 0]);
    }
}
