//! The order in which hosts are asked: each in turn, and those that failed for the moment again after a pause.

use std::time::Duration;

use crate::{Answer, Error, Session, Settings, Why, hosts::Capabilities, session::Endpoint};

/// Hands out hosts until one answers or all have failed for good.
pub(crate) struct Rounds<'a> {
    settings: &'a Settings,
    doing: &'static str,
    object: String,
    /// Hosts to ask in this round, last first, and with their place in `answers`.
    now: Vec<&'a Endpoint>,
    /// Hosts to ask in the next round.
    later: Vec<&'a Endpoint>,
    current: Option<&'a Endpoint>,
    answers: Vec<(&'a Endpoint, Why)>,
    round: u32,
    last: Option<&'a Endpoint>,
}

impl Session {
    /// The hosts that may be asked this.
    pub(crate) fn rounds(
        &self,
        doing: &'static str,
        object: String,
        capable: impl Fn(&Capabilities) -> bool,
    ) -> Rounds<'_> {
        let mut now: Vec<&Endpoint> =
            self.inner().hosts.iter().filter(|endpoint| capable(&endpoint.host.capabilities)).collect();
        let last = now.last().copied();
        now.reverse();
        let settings = self.settings();
        Rounds { settings, doing, object, now, later: Vec::new(), current: None, answers: Vec::new(), round: 0, last }
    }
}

impl<'a> Rounds<'a> {
    /// The next host to ask, after a pause where all have been asked before.
    pub(crate) async fn next(&mut self) -> Option<&'a Endpoint> {
        if self.now.is_empty() {
            if self.later.is_empty() || self.round >= self.settings.retries {
                return None;
            }
            tokio::time::sleep(self.pause()).await;
            self.round += 1;
            self.later.reverse();
            self.now = std::mem::take(&mut self.later);
        }
        self.current = self.now.pop();
        self.current
    }

    /// Notes why the host that was handed out last did not do.
    pub(crate) fn failed(&mut self, why: Why) {
        let Some(endpoint) = self.current.take() else { return };
        tracing::debug!(host = %endpoint.url(), doing = self.doing, object = %self.object, %why, "host failed");
        let is_last = self.last.is_some_and(|last| std::ptr::eq(last, endpoint));
        if why.is_transient() {
            self.later.push(endpoint);
        } else if is_last {
            // The registry itself has spoken; mirrors that failed for the moment can't know better.
            self.later.clear();
        }
        self.answers.retain(|(asked, _)| !std::ptr::eq(*asked, endpoint));
        self.answers.push((endpoint, why));
    }

    /// The error of the whole.
    pub(crate) fn error(mut self) -> Error {
        // The registry's own word last, however often mirrors were asked again.
        self.answers.sort_by_key(|(endpoint, _)| self.last.is_some_and(|last| std::ptr::eq(last, *endpoint)));
        let answers = self.answers.into_iter().map(|(endpoint, why)| Answer { host: endpoint.url(), why }).collect();
        Error::Hosts { doing: self.doing, object: self.object, answers }
    }

    fn pause(&self) -> Duration {
        let asked = self.answers.iter().filter_map(|(_, why)| match why {
            Why::Status { retry_after, .. } => *retry_after,
            _ => None,
        });
        backoff(self.settings, self.round, asked.max())
    }
}

/// The pause before retry number `attempt` (from 0): doubled each time, or what the registry asked for if that is
/// longer, within the limit.
pub(crate) fn backoff(settings: &Settings, attempt: u32, asked: Option<Duration>) -> Duration {
    let ours = settings.backoff.saturating_mul(1 << attempt.min(16));
    ours.max(asked.unwrap_or_default()).min(settings.max_backoff)
}
