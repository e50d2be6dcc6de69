//! Pulls under way, and what became of those before: for verbose status and metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kevel_contract::transfer::Progress;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// News that wait to be counted.
const PENDING: usize = 256;

/// Upper ends of the classes of throughput, in MiB/s; those that containerd counts in.
pub const THROUGHPUT: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How pulls went since the daemon started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PullCounts {
    /// Pulls that succeeded.
    pub succeeded: u64,
    /// Pulls that failed.
    pub failed: u64,
    /// Pulls under way.
    pub running: u64,
    /// Pulls that succeeded, by throughput: at most as fast as the class of [`THROUGHPUT`], and as every slower one.
    pub throughput: [u64; THROUGHPUT.len()],
    /// Sum of the throughputs of pulls that succeeded, in MiB/s.
    pub throughput_sum: f64,
}

/// Every pull of the CRI's.
#[derive(Default)]
pub(crate) struct Pulls {
    counts: Mutex<PullCounts>,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Arc<Pull>>>,
}

/// A pull under way.
struct Pull {
    image: String,
    since: Instant,
    layers: Mutex<BTreeMap<String, Layer>>,
}

#[derive(Default)]
struct Layer {
    state: String,
    done: u64,
    total: u64,
}

/// Held by who pulls. Dropped without [`Watched::succeeded`], the pull has failed.
pub(crate) struct Watched<'a> {
    pulls: &'a Pulls,
    number: u64,
    since: Instant,
    done: bool,
}

impl Pulls {
    /// Watches a pull: where its news go, and what to tell when it is over.
    pub(crate) fn watch(&self, image: &str) -> (mpsc::Sender<Progress>, Watched<'_>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let pull = Arc::new(Pull { image: image.to_owned(), since, layers: Mutex::default() });
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&pull));
        self.change(|counts| counts.running += 1);
        let (sender, mut news) = mpsc::channel(PENDING);
        // Ends with the transfer, which has the sender.
        tokio::spawn(async move {
            while let Some(progress) = news.recv().await {
                pull.heard(progress);
            }
        });
        (sender, Watched { pulls: self, number, since, done: false })
    }

    /// How pulls went.
    pub(crate) fn counts(&self) -> PullCounts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pulls under way, as verbose status shows them.
    pub(crate) fn describe(&self) -> Vec<Value> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().map(|pull| pull.describe()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut PullCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Pull {
    fn heard(&self, progress: Progress) {
        if progress.descriptor.is_none() || !progress.name.contains(':') || progress.total == 0 {
            return; // of the image as a whole
        }
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = layers.entry(progress.name).or_default();
        // Unpacking begins before the download ends; what counts is what has arrived.
        layer.done = layer.done.max(progress.progress);
        layer.total = progress.total;
        layer.state = progress.event;
    }

    fn describe(&self) -> Value {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |of: fn(&Layer) -> u64| layers.values().map(of).sum::<u64>();
        let parts: BTreeMap<_, _> = layers
            .iter()
            .map(|(digest, layer)| (digest, json!({ "state": layer.state, "bytes": layer.done, "total": layer.total })))
            .collect();
        json!({
            "image": self.image,
            "seconds": self.since.elapsed().as_secs_f64(),
            "bytes": sum(|layer| layer.done),
            "total": sum(|layer| layer.total),
            "content": parts,
        })
    }
}

impl Watched<'_> {
    /// The pull brought an image of so many compressed bytes.
    pub(crate) fn succeeded(mut self, size: u64) {
        self.done = true;
        let took = self.since.elapsed().max(Duration::from_micros(1)).as_secs_f64();
        let throughput = size as f64 / f64::from(1 << 20) / took;
        self.pulls.change(|counts| {
            counts.succeeded += 1;
            counts.throughput_sum += throughput;
            for (count, end) in counts.throughput.iter_mut().zip(THROUGHPUT) {
                *count += u64::from(throughput <= end);
            }
        });
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.pulls.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        self.pulls.change(|counts| {
            counts.running -= 1;
            counts.failed += u64::from(!self.done);
        });
    }
}

#[cfg(test)]
mod tests {
    use kevel_model::{Descriptor, Digest, media_type};

    use super::*;

    fn news(event: &str, of: &str, progress: u64, total: u64) -> Progress {
        let digest = Digest::sha256(of.as_bytes());
        let descriptor = Some(Descriptor::new(media_type::OCI_LAYER, digest.clone(), total));
        let (event, name) = (event.to_owned(), digest.to_string());
        Progress { event, name, parents: Vec::new(), progress, total, descriptor }
    }

    #[tokio::test]
    async fn pulls_are_watched_and_counted() {
        let pulls = Pulls::default();
        let (sender, watched) = pulls.watch("a:1");
        let (_, other) = pulls.watch("b:1");
        for one in [
            news("waiting", "x", 0, 100),
            news("waiting", "y", 0, 50),
            news("downloading", "x", 70, 100),
            news("extracting", "x", 0, 100),
        ] {
            sender.send(one).await.unwrap();
        }
        // The watcher is done when it has let go of the channel.
        let capacity = sender.max_capacity();
        while sender.capacity() < capacity || pulls.describe()[0]["bytes"] != 70 {
            tokio::task::yield_now().await;
        }
        let shown = &pulls.describe()[0];
        assert_eq!((shown["image"].as_str(), shown["total"].as_u64()), (Some("a:1"), Some(150)));
        let state = &shown["content"][Digest::sha256(b"x").as_str()]["state"];
        assert!(state == "downloading" || state == "extracting");
        assert_eq!(pulls.counts().running, 2);
        watched.succeeded(1 << 20);
        drop(other);
        let counts = pulls.counts();
        assert_eq!((counts.succeeded, counts.failed, counts.running), (1, 1, 0));
        assert!(counts.throughput_sum > 0.0);
        assert!(pulls.describe().is_empty());
    }
}
