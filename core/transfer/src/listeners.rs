//! Who is told how a transfer goes: whoever asked for it, and whoever joined.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use kevel_contract::transfer::Progress;
use tokio::sync::mpsc;

/// The listeners of one transfer.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<mpsc::Sender<Progress>>>);

impl Listeners {
    /// The one listener of a transfer that nobody joins.
    pub(crate) fn of(progress: Option<mpsc::Sender<Progress>>) -> Arc<Self> {
        let listeners = Self::default();
        listeners.add(progress);
        Arc::new(listeners)
    }

    pub(crate) fn add(&self, progress: Option<mpsc::Sender<Progress>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(progress);
    }

    /// Tells them; those that don't keep up miss something, those that are gone are forgotten.
    pub(crate) fn tell(&self, news: impl FnOnce() -> Progress) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return;
        }
        let news = news();
        listeners
            .retain(|listener| !matches!(listener.try_send(news.clone()), Err(mpsc::error::TrySendError::Closed(_))));
    }
}

/// The listeners of transfers that others may join.
pub(crate) struct Audience<K>(Mutex<HashMap<K, Weak<Listeners>>>);

impl<K> Default for Audience<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Audience<K> {
    /// The listeners of the transfer of this key, with one more.
    pub(crate) fn join(&self, key: K, progress: Option<mpsc::Sender<Progress>>) -> Arc<Listeners> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, listeners| listeners.strong_count() > 0);
        if let Some(listeners) = all.get(&key).and_then(Weak::upgrade) {
            listeners.add(progress);
            return listeners;
        }
        let listeners = Listeners::of(progress);
        all.insert(key, Arc::downgrade(&listeners));
        listeners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(event: &str) -> Progress {
        let (event, name) = (event.to_owned(), String::new());
        Progress { event, name, parents: Vec::new(), progress: 0, total: 0, descriptor: None }
    }

    #[test]
    fn whoever_joins_is_told_and_whoever_left_is_forgotten() {
        let audience = Audience::default();
        let ((first, mut one), (second, mut two)) = (mpsc::channel(4), mpsc::channel(4));
        let listeners = audience.join("a", Some(first));
        listeners.tell(|| news("early"));
        let same = audience.join("a", Some(second));
        assert!(Arc::ptr_eq(&listeners, &same));
        listeners.tell(|| news("both"));
        assert_eq!([one.try_recv().unwrap().event, one.try_recv().unwrap().event], ["early", "both"]);
        assert_eq!(two.try_recv().unwrap().event, "both");
        drop((one, two));
        listeners.tell(|| news("nobody"));
        assert!(listeners.0.lock().unwrap().is_empty());
        drop((listeners, same));
        let (third, _rest) = mpsc::channel(1);
        assert_eq!(audience.join("a", Some(third)).0.lock().unwrap().len(), 1, "a new transfer has its own");
    }
}
