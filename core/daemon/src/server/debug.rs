//! The debug listener: what the daemon knows of itself, over HTTP on a Unix socket of root's. containerd serves Go's
//! profiles there, which are Go's alone; the variables at `/debug/vars` have their place here, too.

use std::{fs, sync::Arc, time::Instant};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Bytes};
use kevel_plugin::{InitContext, InitError, Plugin, PluginStatus, Report, Reports};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Server, Servers, Serving, http, socket::Socket};

/// What is at `/`.
const INDEX: &str = "/debug/vars     the daemon and its process\n\
                     /debug/plugins  every plugin, with its status\n\
                     /debug/threads  what each thread waits for in the kernel\n";

/// `io.containerd.server.v1.debug`: off unless it has an address.
pub(crate) struct Debug;

impl Plugin for Debug {
    type Kind = Servers;
    const ID: &'static str = "debug";
    type Config = Socket;
    type Deps = ();

    async fn init(cx: InitContext, config: Socket, (): ()) -> Result<Server, InitError> {
        if config.address.is_empty() {
            return Err(InitError::Skip("no address is configured".to_owned()));
        }
        let (reports, started) = (cx.reports.clone(), Instant::now());
        let knows = Arc::new(Knows { reports, started });
        Ok(Server::new(move |stop| listen(config.clone(), knows.clone(), stop)))
    }
}

struct Knows {
    reports: Reports,
    started: Instant,
}

async fn listen(config: Socket, knows: Arc<Knows>, stop: CancellationToken) -> anyhow::Result<Serving> {
    let listener = config.listen().await?;
    Ok(Box::pin(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let knows = knows.clone();
                    let answer = move |request: &Request<_>| {
                        let answer = answer(request, &knows);
                        async move { answer }
                    };
                    tokio::spawn(http::connection(stream, answer, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a debug connection");
                    tokio::task::yield_now().await;
                }
            }
        }
        let _ = tokio::fs::remove_file(config.path()).await; // a leftover is replaced at the next start
    }))
}

fn answer<B>(request: &Request<B>, knows: &Knows) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return http::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
    }
    match request.uri().path() {
        "/" | "/debug" | "/debug/" => http::text(StatusCode::OK, INDEX),
        "/debug/vars" => http::json(&knows.variables()),
        "/debug/plugins" => http::json(&knows.reports.all().iter().map(|report| describe(report)).collect::<Value>()),
        "/debug/threads" => http::text(StatusCode::OK, threads()),
        path if path.starts_with("/debug/pprof") => {
            let why = format!("this is no Go program; profile process {} with perf\n", std::process::id());
            http::text(StatusCode::NOT_FOUND, why)
        }
        _ => http::text(StatusCode::NOT_FOUND, INDEX),
    }
}

impl Knows {
    fn variables(&self) -> Value {
        let words: Vec<_> = std::env::args().collect();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).map(|kib| kib * 1024)
        };
        let count = |folder: &str| fs::read_dir(folder).map(Iterator::count).ok();
        json!({
            "cmdline": words,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptimeSeconds": self.started.elapsed().as_secs(),
            "memory": { "resident": kib("VmRSS"), "peak": kib("VmHWM"), "anonymous": kib("RssAnon") },
            "openFiles": count("/proc/self/fd"),
            "threads": count("/proc/self/task"),
        })
    }
}

fn describe(report: &Report) -> Value {
    let (status, why) = match &report.status {
        PluginStatus::Ok => ("ok", None),
        PluginStatus::Skip(why) => ("skip", Some(why)),
        PluginStatus::Error(why) => ("error", Some(why)),
    };
    json!({
        "uri": report.uri(),
        "status": status,
        "why": why,
        "requires": report.requires,
        "exports": report.declared.exports,
        "capabilities": report.declared.capabilities,
        "platforms": report.declared.platforms,
        "unknownKeys": report.unknown_keys,
    })
}

/// A line for each thread: id, name, state, and where it is in the kernel.
fn threads() -> String {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return String::new() };
    let mut lines: Vec<_> = tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
            let stat = read("stat");
            let state = stat.rsplit_once(')')?.1.trim().chars().next()?;
            let id = path.file_name()?.to_str()?.parse::<u32>().ok()?;
            Some((id, format!("{id} {} {state} {}\n", read("comm"), read("wchan"))))
        })
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_only_what_it_knows() {
        let knows = Knows { reports: Reports::default(), started: Instant::now() };
        let ask = |method: Method, path: &str| {
            answer(&Request::builder().method(method).uri(path).body(()).unwrap(), &knows).status()
        };
        for path in ["/", "/debug/vars", "/debug/plugins", "/debug/threads"] {
            assert_eq!(ask(Method::GET, path), StatusCode::OK, "{path}");
        }
        assert_eq!(ask(Method::GET, "/debug/pprof/heap"), StatusCode::NOT_FOUND);
        assert_eq!(ask(Method::GET, "/metrics"), StatusCode::NOT_FOUND);
        assert_eq!(ask(Method::PUT, "/debug/vars"), StatusCode::METHOD_NOT_ALLOWED);
        let known = knows.variables();
        assert_eq!(known["pid"], std::process::id());
        assert!(
            known["memory"]["resident"].as_u64() > Some(1 << 20) && known["openFiles"].as_u64() > Some(2),
            "{known}"
        );
        assert!(threads().lines().any(|line| line.starts_with(&format!("{} ", std::process::id()))));
    }
}
