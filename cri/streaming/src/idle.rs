//! Noticing that nothing happens on a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// When something was last read or written. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    limit: Duration,
    begun: Instant,
    /// Milliseconds after `begun`.
    last: Arc<AtomicU64>,
}

impl Idle {
    /// Counts from now on. A limit of zero is none.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, begun: Instant::now(), last: Arc::default() }
    }

    /// Something happened.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// Ends when nothing happened for the limit.
    pub(crate) async fn expired(&self) {
        if self.limit.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let last = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= self.limit {
                return;
            }
            tokio::time::sleep_until(last + self.limit).await;
        }
    }
}
