//! Foreign peers: programs that serve or call the test service on a socket.

use super::{Site, calls, soon};
use kevel_ttrpc::{Client, Server};
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixListener;
use tokio::process::Command;

/// Runs a program to its end and panics with what it said unless it succeeds.
pub async fn run(command: &mut Command) -> Output {
    let output = command.kill_on_drop(true).stdin(Stdio::null()).output().await;
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    output
}

/// Our client against `program serve SOCKET`.
pub async fn check_foreign_server(program: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let mut command = Command::new(program);
    command.arg("serve").arg(&socket).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut server = command.spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    assert_eq!(soon(said.next_line()).await.unwrap().as_deref(), Some("ready"));
    let client = Client::connect(&socket).await.unwrap();
    calls::check_server(&client).await;
    drop(server.stdin.take()); // asks it to stop
    soon(client.closed()).await;
    soon(server.wait()).await.unwrap();
}

/// `program call SOCKET` against our server.
pub async fn check_foreign_client(program: &Path) {
    let site = Site::with(Server::require_same_uid);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let (server, shutdown) = (site.server.clone(), site.shutdown.clone());
    let serving = tokio::spawn(async move { server.serve(listener, shutdown).await });
    let output = soon(run(Command::new(program).arg("call").arg(&socket))).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.lines().filter(|line| line.starts_with("ok ")).count() >= 7, "checks ran: {said}");
    site.shutdown.cancel();
    soon(serving).await.unwrap();
}
