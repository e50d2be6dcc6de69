//! Tokens: a request waits under a random name until its client comes, once, within a minute.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use kevel_model::{Error, Result};

use crate::request::Pending;

/// How long a token is good.
const LIFE: Duration = Duration::from_secs(60);
/// Requests that wait at the same time.
const MOST: usize = 1000;
/// Random bytes of a token.
const LENGTH: usize = 16;

/// Requests that wait for their clients.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    requests: HashMap<String, Pending>,
    /// Tokens in the order in which they were given out, used ones too.
    order: VecDeque<(Instant, String)>,
}

impl Tokens {
    /// A new token for a request.
    ///
    /// # Errors
    /// Resource exhausted when too many wait.
    pub(crate) fn give(&self, request: Pending) -> Result<String> {
        self.give_at(request, Instant::now())
    }

    fn give_at(&self, request: Pending, now: Instant) -> Result<String> {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::internal("reading random bytes for a token").with_source(error))?;
        let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.clean(now);
        if waiting.requests.len() >= MOST {
            return Err(Error::resource_exhausted(format!("{MOST} streaming requests wait for their clients already")));
        }
        waiting.order.push_back((now, token.clone()));
        waiting.requests.insert(token.clone(), request);
        Ok(token)
    }

    /// The request of a token, which is good no more.
    pub(crate) fn take(&self, token: &str) -> Option<Pending> {
        self.take_at(token, Instant::now())
    }

    fn take_at(&self, token: &str, now: Instant) -> Option<Pending> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.clean(now);
        waiting.requests.remove(token)
    }
}

impl Waiting {
    /// Forgets what nobody came for. Tokens that were used leave the order here too.
    fn clean(&mut self, now: Instant) {
        while let Some((given, token)) = self.order.front()
            && (now.duration_since(*given) >= LIFE || !self.requests.contains_key(token))
        {
            self.requests.remove(token);
            self.order.pop_front();
        }
        if self.order.len() >= 2 * MOST {
            self.order.retain(|(_, token)| self.requests.contains_key(token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::PortForward;

    fn request(pod: &str) -> Pending {
        Pending::PortForward(PortForward { pod_id: pod.to_owned(), ports: Vec::new() })
    }

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let (first, second) = (tokens.give_at(request("a"), now).unwrap(), tokens.give_at(request("b"), now).unwrap());
        assert_ne!(first, second);
        assert_eq!(first.len(), 22);
        assert_eq!(tokens.take("guess"), None);
        assert_eq!(tokens.take_at(&first, now), Some(request("a")));
        assert_eq!(tokens.take_at(&first, now), None);
        let third = tokens.give_at(request("c"), now + Duration::from_millis(1)).unwrap();
        assert_eq!(tokens.take_at(&second, now + LIFE), None);
        assert_eq!(tokens.take_at(&third, now + LIFE), Some(request("c")));
    }

    #[test]
    fn only_so_many_wait() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let given: Vec<_> = (0..MOST).map(|_| tokens.give_at(request("a"), now).unwrap()).collect();
        let refused = tokens.give_at(request("b"), now).unwrap_err();
        assert_eq!(refused.code(), kevel_model::Code::ResourceExhausted);
        tokens.take_at(&given[500], now).unwrap();
        tokens.give_at(request("b"), now).unwrap();
        assert!(tokens.give_at(request("b"), now).is_err());
        tokens.give_at(request("b"), now + LIFE).unwrap();
        assert_eq!(tokens.0.lock().unwrap().order.len(), 1);
    }
}
