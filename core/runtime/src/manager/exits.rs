//! How containers ended whose shims are gone, for a while: a retried Delete is answered from here.

use std::collections::{HashMap, VecDeque};

use kevel_contract::task::Deleted;

use super::Key;

/// How many are remembered.
const MAX_EXITS: usize = 4096;

/// Ends by container, the oldest forgotten first.
#[derive(Default)]
pub(super) struct Exits {
    by_key: HashMap<Key, Deleted>,
    order: VecDeque<Key>,
}

impl Exits {
    pub(super) fn get(&self, key: &Key) -> Option<Deleted> {
        self.by_key.get(key).cloned()
    }

    pub(super) fn put(&mut self, key: Key, deleted: Deleted) {
        if self.by_key.insert(key.clone(), deleted).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > MAX_EXITS {
            if let Some(oldest) = self.order.pop_front() {
                self.by_key.remove(&oldest);
            }
        }
    }

    /// Forgets a container whose id is used again.
    pub(super) fn forget(&mut self, key: &Key) {
        if self.by_key.remove(key).is_some() {
            self.order.retain(|other| other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kevel_contract::task::Exit;
    use kevel_model::Namespace;
    use std::time::SystemTime;

    #[test]
    fn the_oldest_ends_are_forgotten() {
        let key = |n: usize| (Namespace::k8s(), n.to_string());
        let exit = Exit { status: 0, at: SystemTime::UNIX_EPOCH };
        let mut exits = Exits::default();
        for n in 0..MAX_EXITS + 2 {
            exits.put(key(n), Deleted { id: n.to_string(), pid: 1, exit });
        }
        assert!(exits.get(&key(1)).is_none());
        assert!(exits.get(&key(2)).is_some());
        exits.forget(&key(2));
        assert!(exits.get(&key(2)).is_none());
        assert_eq!(exits.by_key.len(), exits.order.len());
    }
}
