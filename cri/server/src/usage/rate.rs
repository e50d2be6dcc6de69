//! CPU time into cores: what a container used since the last look.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Between two looks at CPU time, in nanoseconds; nearer ones say too little.
const APART: i64 = 500_000_000;

/// CPU time at the last look, by pod and container.
#[derive(Default)]
pub(crate) struct Rates {
    last: Mutex<HashMap<String, Look>>,
}

#[derive(Clone, Copy)]
struct Look {
    at: i64,
    cpu: u64,
    rate: Option<u64>,
}

impl Rates {
    /// Billionths of a core since the last look; none at the first.
    pub(crate) fn rate(&self, id: &str, at: i64, cpu: u64) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(look) = last.get(id).copied() else {
            last.insert(id.to_owned(), Look { at, cpu, rate: None });
            return None;
        };
        let (span, used) = (at - look.at, cpu.saturating_sub(look.cpu));
        if span < APART {
            return look.rate;
        }
        let rate = u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(span.unsigned_abs())).ok();
        last.insert(id.to_owned(), Look { at, cpu, rate });
        rate
    }

    /// Forgets what is gone.
    pub(crate) fn forget(&self, id: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_two_looks() {
        let rates = Rates::default();
        assert_eq!(rates.rate("a", 0, 5), None);
        assert_eq!(rates.rate("a", 10, 9), None);
        assert_eq!(rates.rate("a", 4 * APART, 5 + 1_000_000_000), Some(500_000_000));
        assert_eq!(rates.rate("a", 4 * APART + 1, 9_000_000_000), Some(500_000_000));
        rates.forget("a");
        assert_eq!(rates.rate("a", 9 * APART, 1), None);
    }
}
