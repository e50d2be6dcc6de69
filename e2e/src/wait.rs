//! Waiting for a state.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::patience;

/// A test gives up on a state after so many seconds; far more than any takes on a busy machine.
const PATIENCE: u64 = 60;

/// Waits until `state` answers something; the error says what was waited for.
pub fn until<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let (begun, limit) = (Instant::now(), patience(PATIENCE));
    loop {
        if let Some(found) = state() {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        #[expect(clippy::disallowed_methods, reason = "the pause between two looks at a state")]
        std::thread::sleep(Duration::from_millis(20));
    }
}
