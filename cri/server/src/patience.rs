//! How long a caller waits for its answer, so that it gets one: who asks for something slow is told, just before it would
//! give up, how far the operation is, and joins it by asking again.
//!
//! The deadline comes with the call (`grpc-timeout`). It ends the waiting, never the work.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tonic::{
    codegen::{Service, http},
    server::NamedService,
};

/// The answer leaves this much before the caller's deadline, but for short deadlines a tenth of them.
const MARGIN: Duration = Duration::from_secs(1);

tokio::task_local! {
    static DEADLINE: Option<Instant>;
}

/// When the caller of this task wants an answer; none when it waits for ever.
pub(crate) fn deadline() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

/// Runs something for a caller who wants an answer at that time.
#[cfg(test)]
pub(crate) async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> T {
    DEADLINE.scope(deadline, work).await
}

/// A gRPC service that knows each caller's deadline.
#[derive(Clone, Debug)]
pub(crate) struct Patient<S>(pub(crate) S);

impl<S: NamedService> NamedService for Patient<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Patient<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = tokio::task::futures::TaskLocalFuture<Option<Instant>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let limit = request.headers().get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit - (limit / 10).min(MARGIN)));
        DEADLINE.scope(deadline, self.0.call(request))
    }
}

/// A `grpc-timeout`: up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_grpc() {
        for (text, want) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("119S", Some(Duration::from_secs(119))),
            ("1500m", Some(Duration::from_millis(1500))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("123456789S", None),
            ("1\u{fc}", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
