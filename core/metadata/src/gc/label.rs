//! The labels by which objects refer to each other and ask to stay.

use std::time::SystemTime;

use kevel_model::{Labels, Namespace};

use super::mark::Node;

/// In front of every label that is read here.
const PREFIX: &str = "containerd.io/gc.";
/// Keeps its object, whoever refers to it.
pub(super) const ROOT: &str = "containerd.io/gc.root";
/// When its object ends by itself, as an RFC 3339 time.
pub(super) const EXPIRE: &str = "containerd.io/gc.expire";
/// On a lease: what it keeps is kept without what that refers to.
pub(super) const FLAT: &str = "containerd.io/gc.flat";
/// In front of a reference from the labelled object to another.
const REFERENCE: &str = "containerd.io/gc.ref.";
/// In front of a reference back: the labelled object lives as long as the other.
const BACK: &str = "containerd.io/gc.bref.";

/// What an object refers to.
pub(super) fn references(namespace: &Namespace, labels: &Labels) -> Vec<Node> {
    select(REFERENCE, namespace, labels)
}

/// What keeps an object by back reference.
pub(super) fn keepers(namespace: &Namespace, labels: &Labels) -> Vec<Node> {
    select(BACK, namespace, labels)
}

fn select(prefix: &str, namespace: &Namespace, labels: &Labels) -> Vec<Node> {
    let matching = labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
    matching.filter_map(|(what, value)| node(namespace, what, value)).collect()
}

/// The object that `what` (`content`, `content.l.0`, `snapshot.overlayfs/x`, ...) and `value` name. What follows the
/// sort after `.` or `/` only makes the label unique.
fn node(namespace: &Namespace, what: &str, value: &str) -> Option<Node> {
    let namespace = namespace.clone();
    let (sort, rest) = what.split_at(what.find(['.', '/']).unwrap_or(what.len()));
    let name = value.to_owned();
    match sort {
        "content" => Some(Node::Blob(namespace, name)),
        "image" => Some(Node::Image(namespace, name)),
        "container" => Some(Node::Container(namespace, name)),
        "mount" => Some(Node::Mount(namespace, name)),
        "snapshot" => {
            let snapshotter = rest.strip_prefix('.')?.split('/').next()?;
            (!snapshotter.is_empty()).then(|| Node::Snapshot(namespace, snapshotter.to_owned(), name))
        }
        _ => None,
    }
}

/// Whether labels that change so may let go of something: of what they kept, or of the time that their object had. More
/// that is kept, and labels that nobody here reads, are no reason to look.
pub(crate) fn let_go(before: &Labels, after: &Labels) -> bool {
    let lost = before.iter().any(|(key, value)| key.starts_with(PREFIX) && after.get(key) != Some(value));
    lost || after.get(EXPIRE) != before.get(EXPIRE)
}

/// Whether an object's time has come. A label that is no time never comes: what can't be read is kept.
pub(super) fn expired(labels: &Labels, now: SystemTime) -> bool {
    let time = labels.get(EXPIRE).and_then(|text| text.parse::<prost_types::Timestamp>().ok());
    time.and_then(|time| SystemTime::try_from(time).ok()).is_some_and(|time| time <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_objects() {
        let space = Namespace::new("n").unwrap();
        let check = |key: &str, want: Option<Node>| {
            let labels = Labels::from([(key.to_owned(), "v".to_owned())]);
            assert_eq!(references(&space, &labels), Vec::from_iter(want), "{key}");
        };
        let blob = || Some(Node::Blob(space.clone(), "v".into()));
        let snapshot = |name: &str| Some(Node::Snapshot(space.clone(), name.into(), "v".into()));
        check("containerd.io/gc.ref.content", blob());
        check("containerd.io/gc.ref.content.config", blob());
        check("containerd.io/gc.ref.content.l.7", blob());
        check("containerd.io/gc.ref.content/x", blob());
        check("containerd.io/gc.ref.contents", None);
        check("containerd.io/gc.ref.snapshot.overlayfs", snapshot("overlayfs"));
        check("containerd.io/gc.ref.snapshot.overlayfs/1", snapshot("overlayfs"));
        check("containerd.io/gc.ref.snapshot", None);
        check("containerd.io/gc.ref.snapshot.", None);
        check("containerd.io/gc.ref.image", Some(Node::Image(space.clone(), "v".into())));
        check("containerd.io/gc.bref.image", None);
        check("gc.ref.content", None);
        let labels = Labels::from([("containerd.io/gc.bref.container.a".to_owned(), "v".to_owned())]);
        assert_eq!(keepers(&space, &labels), [Node::Container(space.clone(), "v".into())]);
    }

    #[test]
    fn only_what_is_let_go_counts() {
        let check = |before: &[(&str, &str)], after: &[(&str, &str)], want: bool| {
            let labels = |pairs: &[(&str, &str)]| -> Labels {
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
            };
            assert_eq!(let_go(&labels(before), &labels(after)), want, "{before:?} {after:?}");
        };
        let (reference, other) = (("containerd.io/gc.ref.content", "a"), ("containerd.io/gc.ref.content", "b"));
        check(&[], &[], false);
        check(&[("app", "x")], &[("app", "y")], false);
        check(&[("app", "x")], &[], false);
        check(&[], &[reference], false);
        check(&[reference], &[reference, ("app", "x")], false);
        check(&[reference], &[other], true);
        check(&[reference], &[], true);
        check(&[(ROOT, "")], &[], true);
        check(&[("containerd.io/gc.bref.image", "x")], &[], true);
        check(&[], &[(EXPIRE, "2020-01-02T03:04:05Z")], true);
    }

    #[test]
    fn times_come() {
        let check = |text: &str, want: bool| {
            let labels = Labels::from([(EXPIRE.to_owned(), text.to_owned())]);
            assert_eq!(expired(&labels, SystemTime::now()), want, "{text}");
        };
        check("2020-01-02T03:04:05Z", true);
        check("2020-01-02T03:04:05.678+02:00", true);
        check("2999-01-01T00:00:00Z", false);
        check("soon", false);
        assert!(!expired(&Labels::new(), SystemTime::now()));
    }
}
