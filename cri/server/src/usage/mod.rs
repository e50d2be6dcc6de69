//! What pods and containers use, for statistics, metrics and the reason of an end: one reader over the cgroup file
//! system that remembers where each container is. It asks no shim and walks no file system for an answer.

mod collect;
mod layer;
pub(crate) mod network;
mod oom;
mod rate;
mod share;

pub(crate) use layer::{Counted, Layers};
pub(crate) use oom::Verdict;
pub(crate) use share::Shared;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kevel_cgroup::{Hierarchies, OomCounter, Place};

use self::rate::Rates;
use crate::files::blocking;

/// The reader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Inner>);

struct Inner {
    hierarchies: Hierarchies,
    followed: Mutex<HashMap<String, Followed>>,
    rates: Rates,
}

/// Where a process is.
#[derive(Clone)]
struct Followed {
    pid: u32,
    place: Arc<Place>,
    /// What the cgroup above had counted when the process came, where that counts what is below.
    above: Option<(OomCounter, u64)>,
}

impl Default for Meter {
    fn default() -> Self {
        let hierarchies = Hierarchies::of_node().unwrap_or_else(|error| {
            tracing::warn!(%error, "no cgroups are found; nothing can be said of what containers use");
            Hierarchies::default()
        });
        Self(Arc::new(Inner { hierarchies, followed: Mutex::default(), rates: Rates::default() }))
    }
}

impl Meter {
    /// Looks where a container's or pod's process is, before it can end.
    pub(crate) async fn follow(&self, id: &str, pid: u32) {
        let (meter, id) = (self.clone(), id.to_owned());
        let looked = blocking(move || Ok(meter.look(&id, pid))).await;
        drop(looked); // a process that is gone already has no place
    }

    /// The place of a process under an id, found once. Blocks.
    pub(crate) fn place(&self, id: &str, pid: u32) -> Option<Arc<Place>> {
        if let Some(followed) = self.followed(id)
            && followed.pid == pid
        {
            return Some(followed.place);
        }
        self.look(id, pid)
    }

    fn look(&self, id: &str, pid: u32) -> Option<Arc<Place>> {
        if pid == 0 {
            return None;
        }
        let place = Arc::new(self.0.hierarchies.place(pid).ok()?.named(id));
        let above = OomCounter::of(&place.parent()).filter(OomCounter::counts_below);
        let above = above.and_then(|counter| counter.kills().map(|kills| (counter, kills)));
        let followed = Followed { pid, place: place.clone(), above };
        self.lock().insert(id.to_owned(), followed);
        Some(place)
    }

    /// Whether somebody looked where a process is.
    pub(crate) fn follows(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    fn followed(&self, id: &str) -> Option<Followed> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Followed>> {
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Billionths of a core since the last look; none at the first.
    pub(crate) fn rate(&self, id: &str, at: i64, cpu: u64) -> Option<u64> {
        self.0.rates.rate(id, at, cpu)
    }

    /// Forgets what is gone.
    pub(crate) fn forget(&self, id: &str) {
        self.0.rates.forget(id);
        self.lock().remove(id);
    }
}
