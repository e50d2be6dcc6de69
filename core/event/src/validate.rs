//! What may be an event.

use std::time::{SystemTime, UNIX_EPOCH};

use kevel_contract::event::Envelope;
use kevel_model::{NameError, check_identifier};

/// The longest topic in bytes.
const MAX_TOPIC: usize = 512;

/// Why an event or a subscription was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not `/` and words.
    #[error("topic {0:?} must begin with '/' and have words between slashes, {MAX_TOPIC} bytes at most")]
    Topic(String),
    /// A word of the topic is none.
    #[error("topic {topic:?}: {source}")]
    Word {
        /// The topic.
        topic: String,
        /// What is wrong.
        source: NameError,
    },
    /// A forwarded event without a time.
    #[error("timestamp of the event {0:?} is not set")]
    Timestamp(String),
    /// More subscribers than the exchange takes.
    #[error("there are {0} subscribers already")]
    Subscribers(usize),
    /// The subscriber read too slowly.
    #[error("subscriber is too slow: {events} events ({bytes} bytes) were waiting, events after them are lost")]
    Slow {
        /// Events in the queue.
        events: usize,
        /// Their size.
        bytes: usize,
    },
}

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Topic(_) | Error::Word { .. } | Error::Timestamp(_) => Self::invalid_argument(message),
            Error::Subscribers(_) | Error::Slow { .. } => Self::resource_exhausted(message),
        }
    }
}

/// Refuses topics other than `/a`, `/a/b` and so on.
pub(crate) fn topic(topic: &str) -> Result<(), Error> {
    let wrong = || Error::Topic(topic.chars().take(64).collect());
    let words = topic.strip_prefix('/').filter(|words| !words.is_empty() && topic.len() <= MAX_TOPIC);
    for word in words.ok_or_else(wrong)?.split('/') {
        check_identifier(word).map_err(|source| Error::Word { topic: topic.to_owned(), source })?;
    }
    Ok(())
}

/// Refuses envelopes that nobody could make sense of.
pub(crate) fn envelope(envelope: &Envelope) -> Result<(), Error> {
    topic(&envelope.topic)?;
    if envelope.timestamp == UNIX_EPOCH || envelope.timestamp < SystemTime::UNIX_EPOCH {
        return Err(Error::Timestamp(envelope.topic.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn topics() {
        for good in ["/a", "/tasks/exec-added", "/a/b/c"] {
            assert_eq!(super::topic(good), Ok(()), "{good}");
        }
        for bad in ["", "/", "a", "a/b", "//", "/a/", "/a//b", "/a b", "/../b", &format!("/{}", "a/".repeat(400))] {
            assert!(super::topic(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}|[/a.]{0,20}") {
            let _ = super::topic(&text);
        }
    }
}
