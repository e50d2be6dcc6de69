//! A circuit breaker: who asks a shim that has not answered several times in a row is refused at once for a while, and not
//! kept waiting until a deadline, so that one stuck shim does not pile up callers.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many unanswered calls in a row open the breaker.
const MISSES: u32 = 3;
/// How long it stays open; after that, one call at a time is let through, to see.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts what was not answered.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    misses: u32,
    since: Option<Instant>,
    /// Refuses until then.
    until: Option<Instant>,
}

impl Breaker {
    /// Whether a call may be made now; if not, for how long there has been no answer.
    pub(crate) fn admit(&self) -> Result<(), Duration> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            Some(until) if now < until => Err(state.since.map_or(Duration::ZERO, |since| now - since)),
            Some(_) => {
                state.until = Some(now + PAUSE); // this one tries; the others wait for what it finds
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// How many calls in a row were not answered in time.
    pub(crate) fn misses(&self) -> u32 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).misses
    }

    /// A call was answered, with whatever.
    pub(crate) fn answered(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// A call was not answered in time. Answers whether that opened the breaker.
    pub(crate) fn missed(&self) -> bool {
        self.missed_at(Instant::now())
    }

    fn missed_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.misses = state.misses.saturating_add(1);
        state.since.get_or_insert(now);
        if state.misses < MISSES {
            return false;
        }
        state.until = Some(now + PAUSE);
        state.misses == MISSES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_some_misses_lets_one_try_and_closes_with_an_answer() {
        let breaker = Breaker::default();
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert!(!breaker.missed_at(at(0)) && !breaker.missed_at(at(1)));
        assert_eq!(breaker.admit_at(at(1)), Ok(()));
        assert!(breaker.missed_at(at(2)), "the third opens it");
        assert_eq!(breaker.admit_at(at(5)), Err(Duration::from_secs(5)));
        assert_eq!(breaker.admit_at(at(12)), Ok(()), "one may try");
        assert_eq!(breaker.admit_at(at(12)), Err(Duration::from_secs(12)), "and no other meanwhile");
        assert!(!breaker.missed_at(at(14)), "it was open before");
        assert_eq!(breaker.admit_at(at(23)), Err(Duration::from_secs(23)));
        assert_eq!(breaker.admit_at(at(24)), Ok(()));
        breaker.answered();
        assert_eq!(breaker.admit_at(at(24)), Ok(()));
        assert!(!breaker.missed_at(at(25)), "counting begins anew");
    }
}
