//! What has to be undone when an operation fails half-way.

use std::time::Duration;

use futures::future::BoxFuture;
use kevel_model::{Error, Result};

/// Steps back, in the order in which the steps forward were taken. Dropping it undoes nothing.
pub(crate) struct Undo {
    limit: Duration,
    steps: Vec<(&'static str, BoxFuture<'static, Result<()>>)>,
}

impl Undo {
    /// Nothing to undo yet. No step back may take longer than `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, steps: Vec::new() }
    }

    /// Adds the step back for what is about to be done; it must tolerate that it was not done.
    pub(crate) fn push(&mut self, name: &'static str, step: impl Future<Output = Result<()>> + Send + 'static) {
        self.steps.push((name, Box::pin(step)));
    }

    /// Takes every step back, the last one first, whatever the others do. Answers the failures.
    pub(crate) async fn unwind(mut self) -> Vec<Error> {
        let mut left = Vec::new();
        while let Some((name, step)) = self.steps.pop() {
            let done = tokio::time::timeout(self.limit, step).await;
            match done.unwrap_or_else(|_| Err(Error::deadline_exceeded(format!("not done within {:?}", self.limit)))) {
                Err(error) if !error.is_not_found() => {
                    tracing::warn!(step = name, error = error.chain(), "undoing failed");
                    left.push(error.context(name));
                }
                _ => {}
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn goes_backwards_and_past_failures() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::new(Duration::from_secs(60));
        for (step, fails) in [(1, false), (2, true), (3, false)] {
            let seen = seen.clone();
            undo.push("step", async move {
                seen.lock().unwrap().push(step);
                if fails { Err(Error::internal("no")) } else { Ok(()) }
            });
        }
        undo.push("gone", async { Err(Error::not_found("was never made")) });
        assert_eq!(undo.unwind().await.len(), 1);
        assert_eq!(*seen.lock().unwrap(), [3, 2, 1]);
    }
}
