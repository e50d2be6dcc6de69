//! One sort of object in memory: an ordered map whose copies cost nothing, so that every reader has its own.

use std::{ops::Bound, sync::Arc};

use kevel_model::Namespace;
use rpds::RedBlackTreeMapSync;

/// Objects by key. A clone is a snapshot.
#[derive(Clone)]
pub(crate) struct Shelf<V>(RedBlackTreeMapSync<Arc<str>, Arc<V>>);

impl<V> Default for Shelf<V> {
    fn default() -> Self {
        Self(RedBlackTreeMapSync::new_sync())
    }
}

/// The key of an object in a namespace. The parts are joined by a byte that none of them has (checked where they come
/// in), so that the objects of a namespace, or of a part of it, lie together.
pub(crate) fn key(namespace: &Namespace, parts: &[&str]) -> String {
    let mut key = namespace.as_str().to_owned();
    for part in parts {
        key.push('\0');
        key.push_str(part);
    }
    key
}

/// The part of `key` after its first `skip` parts.
pub(crate) fn part(key: &str, skip: usize) -> &str {
    key.splitn(skip + 1, '\0').nth(skip).unwrap_or_default()
}

impl<V> Shelf<V> {
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<V>> {
        self.0.get(key)
    }

    pub(crate) fn insert(&mut self, key: &str, value: Arc<V>) {
        self.0.insert_mut(key.into(), value);
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.remove_mut(key);
    }

    /// Every object, in order of keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Arc<V>)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// The objects below a key, in order of keys.
    pub(crate) fn under<'s>(&'s self, parent: &str) -> std::vec::IntoIter<(&'s str, &'s Arc<V>)> {
        let (from, to) = (format!("{parent}\0"), format!("{parent}\u{1}"));
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        // The map wants the bounds to live as long as the iterator; the matches are few, so they are gathered.
        let found: Vec<_> = self.0.range::<str, _>(range).map(|(key, value)| (&**key, value)).collect();
        found.into_iter()
    }
}
