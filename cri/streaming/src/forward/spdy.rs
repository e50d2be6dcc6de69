//! Ports over SPDY: for each connection the client opens two streams with the same `requestid`.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::Instant,
};

use crate::{
    command::OPENING,
    idle::Idle,
    runtime::Runtime,
    session::Tunnel,
    spdy::{Incoming, Stream, serve},
};

/// Connections of which one stream is still missing.
const MAX_HALVES: usize = 256;

/// What one stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Data,
    Error,
}

/// A connection's first stream, until the second one comes.
struct Waiting {
    half: Half,
    port: u16,
    stream: Stream,
    since: Instant,
}

/// Forwards connections until the client goes.
pub(super) async fn forward(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    pod: String,
    idle: Idle,
    runtime: Arc<dyn Runtime>,
) {
    let (connection, mut incoming) = serve(io, idle);
    let (gone, mut forwards, mut waiting) = (connection.gone(), JoinSet::new(), HashMap::new());
    loop {
        let late = waiting.values().map(|one: &Waiting| one.since + OPENING).min();
        let stream = tokio::select! {
            () = gone.cancelled() => break,
            Some(_) = forwards.join_next() => continue,
            () = tokio::time::sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                give_up(&mut waiting).await;
                continue;
            }
            stream = incoming.recv() => stream,
        };
        let Some(stream) = stream else { break };
        if let Some((port, data, error)) = pair(stream, &mut waiting) {
            let (runtime, pod) = (runtime.clone(), pod.clone());
            forwards.spawn(async move { run(&*runtime, &pod, port, data, error).await });
        }
    }
    drop(connection);
    // Every stream is cancelled now, so that what still forwards ends by itself.
    while forwards.join_next().await.is_some() {}
}

async fn run(runtime: &dyn Runtime, pod: &str, port: u16, data: Stream, error: Stream) {
    let Stream { input, output, cancelled, end } = data;
    let tunnel = Tunnel { input, output, gone: cancelled };
    let mut told = error.output;
    super::connection(runtime, pod, port, tunnel, &mut told).await;
    // The client may be gone, and then there is nothing to end.
    let _ = told.close().await;
    end.reset().await;
    error.end.reset().await;
}

/// Tells clients whose second stream did not come in time.
async fn give_up(waiting: &mut HashMap<String, Waiting>) {
    let late: Vec<String> =
        waiting.iter().filter(|(_, one)| one.since.elapsed() >= OPENING).map(|(id, _)| id.clone()).collect();
    for id in late {
        if let Some(Waiting { half, stream, .. }) = waiting.remove(&id) {
            let mut output = stream.output;
            if half == Half::Error {
                let _ = output.send("the stream for data did not come in time".into()).await;
            }
            let _ = output.close().await;
        }
    }
}

/// Both streams of a connection, once the second one is there: its port, data, and error.
fn pair(incoming: Incoming, waiting: &mut HashMap<String, Waiting>) -> Option<(u16, Stream, Stream)> {
    let (half, port) = match read(incoming.header("streamtype"), incoming.header("port")) {
        Ok(read) => read,
        Err(why) => {
            tracing::debug!(why, "stream refused");
            incoming.refuse();
            return None;
        }
    };
    let id = request_id(incoming.header("requestid"), half, incoming.number());
    match waiting.remove(&id) {
        Some(other) if other.half != half && other.port == port => {
            let stream = incoming.accept();
            match half {
                Half::Data => Some((port, stream, other.stream)),
                Half::Error => Some((port, other.stream, stream)),
            }
        }
        Some(other) => {
            tracing::debug!(id, "stream that is there already refused");
            incoming.refuse();
            waiting.insert(id, other);
            None
        }
        None if waiting.len() >= MAX_HALVES => {
            incoming.refuse();
            None
        }
        None => {
            let stream = incoming.accept();
            waiting.insert(id, Waiting { half, port, stream, since: Instant::now() });
            None
        }
    }
}

fn read(kind: &str, port: &str) -> Result<(Half, u16), &'static str> {
    let half = match kind {
        "data" => Half::Data,
        "error" => Half::Error,
        _ => return Err("streamtype: neither data nor error"),
    };
    let port = port.parse().ok().filter(|port| *port > 0);
    Ok((half, port.ok_or("port: not a port")?))
}

/// Which streams belong together. Old clients do not say, but open the stream for errors right before the other one.
fn request_id(said: &str, half: Half, number: u32) -> String {
    match half {
        _ if !said.is_empty() => said.to_owned(),
        Half::Error => format!("stream {number}"),
        Half::Data => format!("stream {}", number.saturating_sub(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_say_what_they_are() {
        let check = |kind: &str, port: &str, want: Result<(Half, u16), ()>| {
            assert_eq!(read(kind, port).map_err(drop), want, "{kind} {port}");
        };
        check("data", "80", Ok((Half::Data, 80)));
        check("error", "65535", Ok((Half::Error, 65535)));
        for (kind, port) in
            [("data", ""), ("data", "0"), ("data", "65536"), ("data", "-1"), ("stdin", "80"), ("", "80")]
        {
            check(kind, port, Err(()));
        }
        assert_eq!(request_id("7", Half::Data, 9), "7");
        assert_eq!(request_id("", Half::Error, 9), request_id("", Half::Data, 11));
    }
}
