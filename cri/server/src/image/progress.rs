//! Pulls under way and how far they are, for verbose status. How many there were and how they ended is counted where
//! all metrics are.

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
use tokio::{sync::mpsc, task::JoinHandle};

/// News that wait to be counted.
const PENDING: usize = 256;

/// Every pull of the CRI's.
#[derive(Default)]
pub(crate) struct Pulls {
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
    /// Where its download began, if anything of it had to come.
    from: Option<u64>,
}

/// Held by who pulls, for as long as it takes.
pub(crate) struct Watched<'a> {
    pulls: &'a Pulls,
    number: u64,
    pull: Arc<Pull>,
    /// Ends when no more news come.
    news: Option<JoinHandle<()>>,
}

impl Watched<'_> {
    /// Says that the pull succeeded: `tell` is told how many bytes came from the registry and how long all of it took, when
    /// all news are in.
    pub(crate) fn succeeded(mut self, tell: impl FnOnce(u64, Duration) + Send + 'static) {
        let (took, pull, news) = (self.pull.since.elapsed(), self.pull.clone(), self.news.take());
        tokio::spawn(async move {
            if let Some(news) = news {
                let _ = news.await;
            }
            tell(pull.fetched(), took);
        });
    }
}

impl Pulls {
    /// Watches a pull: where its news go, and what to hold until it is over.
    pub(crate) fn watch(&self, image: &str) -> (mpsc::Sender<Progress>, Watched<'_>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let pull = Arc::new(Pull { image: image.to_owned(), since, layers: Mutex::default() });
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&pull));
        let (sender, mut news) = mpsc::channel(PENDING);
        let heard = pull.clone();
        // Ends with the transfer, which has the sender.
        let news = tokio::spawn(async move {
            while let Some(progress) = news.recv().await {
                heard.heard(progress);
            }
        });
        (sender, Watched { pulls: self, number, pull, news: Some(news) })
    }

    /// The pulls under way, as verbose status shows them.
    pub(crate) fn describe(&self) -> Vec<Value> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().map(|pull| pull.describe()).collect()
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
        if progress.event == "downloading" {
            layer.from.get_or_insert(progress.progress);
        }
        layer.done = layer.done.max(progress.progress);
        layer.total = progress.total;
        layer.state = progress.event;
    }

    /// What came from the registry, once all of it is here.
    fn fetched(&self) -> u64 {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.values().filter_map(|layer| Some(layer.total.saturating_sub(layer.from?))).sum()
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

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.pulls.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
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
    async fn pulls_are_watched() {
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
        assert_eq!(pulls.describe().len(), 2);
        sender.send(news("downloading", "y", 20, 50)).await.unwrap();
        sender.send(news("already exists", "z", 500, 500)).await.unwrap();
        drop((sender, other));
        let (tell, told) = tokio::sync::oneshot::channel();
        watched.succeeded(|bytes, _| tell.send(bytes).unwrap());
        // Of x all but the first 70 that were here, of y all but 20; z was here.
        assert_eq!(told.await.unwrap(), 30 + 30);
        assert!(pulls.describe().is_empty());
    }
}
