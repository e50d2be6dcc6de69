//! Unary calls over memory and Unix sockets: answers, errors, deadlines, cancellation, sizes, lost connections.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod harness;

use harness::{Blob, Number, SERVICE, Site, Text, blob, number, reaches, soon, text};
use kevel_ttrpc::frame::MAX_MESSAGE;
use kevel_ttrpc::{CallOptions, Client, Code, Error, Server};
use std::time::{Duration, Instant};
use tokio::net::UnixListener;

async fn echo(client: &Client, length: usize) -> Result<Blob, Error> {
    client.call(SERVICE, "Echo", &blob(length), CallOptions::default()).await
}

async fn fails(client: &Client, service: &str, method: &str) -> Error {
    let options = CallOptions::timeout(Duration::from_secs(20));
    client.call::<_, Text>(service, method, &text("why"), options).await.expect_err("an error")
}

#[tokio::test]
async fn calls_are_answered() {
    let client = Site::new().client();
    for length in [0, 1, 500, 5_000, 70_000] {
        assert_eq!(echo(&client, length).await.unwrap(), blob(length));
    }
}

#[tokio::test]
async fn errors_keep_code_and_text() {
    let client = Site::new().client();
    let check = async |service: &str, method: &str, code: Code, message: &str| {
        let Error::Status(status) = fails(&client, service, method).await else { panic!("a status") };
        assert_eq!((status.code, status.message.as_str()), (code, message));
    };
    check(SERVICE, "Fail", Code::NotFound, "why").await;
    check(SERVICE, "Missing", Code::Unimplemented, "method Missing").await;
    check("kevel.test.Other", "Echo", Code::Unimplemented, "service kevel.test.Other").await;
    check(SERVICE, "Panic", Code::Internal, "the handler panicked").await;
    assert_eq!(fails(&client, SERVICE, "Grow").await.code(), Code::InvalidArgument, "text is not a number");
    assert_eq!(echo(&client, 3).await.unwrap(), blob(3), "the connection goes on");
}

#[tokio::test]
async fn metadata_and_the_time_limit_arrive() {
    let client = Site::new().client();
    let ask = async |method: &str, options| -> String {
        client.call::<_, Text>(SERVICE, method, &text("Namespace"), options).await.unwrap().value
    };
    assert_eq!(ask("Meta", CallOptions::default().with("namespace", "k8s.io")).await, "k8s.io");
    assert_eq!(ask("Meta", CallOptions::default()).await, "absent");
    assert_eq!(ask("HasDeadline", CallOptions::timeout(Duration::from_secs(9))).await, "yes");
    assert_eq!(ask("HasDeadline", CallOptions::default()).await, "no");
    assert_eq!(ask("HasDeadline", CallOptions::timeout(Duration::MAX)).await, "yes", "saturates");
}

#[tokio::test]
async fn a_deadline_ends_the_call_at_both_ends() {
    let site = Site::new();
    let client = site.client();
    let begun = Instant::now();
    let options = CallOptions::timeout(Duration::from_millis(100));
    let error = client.call::<_, Text>(SERVICE, "Hang", &text(""), options).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() >= Duration::from_millis(100));
    reaches(&site.hanging, 0).await;
    let error = client.call::<_, Text>(SERVICE, "Hang", &text(""), CallOptions::timeout(Duration::ZERO)).await;
    assert_eq!(error.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(echo(&client, 3).await.unwrap(), blob(3));
}

#[tokio::test]
async fn a_dropped_call_is_forgotten_and_its_late_answer_ignored() {
    let site = Site::new();
    let client = site.client();
    for _ in 0..10 {
        let request = text("late");
        let late = client.call::<_, Text>(SERVICE, "Gate", &request, CallOptions::default());
        tokio::select! {
            biased;
            _ = late => panic!("the gate is shut"),
            () = reaches(&site.gated, 1) => {}
        }
        site.gate.notify_one();
        reaches(&site.gated, 0).await;
        assert_eq!(soon(echo(&client, 9)).await.unwrap(), blob(9));
    }
}

#[tokio::test]
async fn messages_up_to_the_limit_pass_and_larger_ones_are_refused() {
    let client = Site::new().client();
    // The envelope: tags and lengths of service, method, payload, and of the blob in it.
    let overhead = (2 + SERVICE.len()) + (2 + "Echo".len()) + 5 + 5;
    let largest = MAX_MESSAGE - overhead;
    assert_eq!(soon(echo(&client, largest)).await.unwrap().value.len(), largest);
    let Error::Status(status) = echo(&client, largest + 1).await.unwrap_err() else { panic!("a status") };
    assert_eq!(status.code, Code::ResourceExhausted);
    assert_eq!(status.message, format!("message of {} bytes exceeds the maximum of {MAX_MESSAGE}", MAX_MESSAGE + 1));
    let grown = client.call::<_, Blob>(SERVICE, "Grow", &number(MAX_MESSAGE as u64), CallOptions::default()).await;
    assert_eq!(grown.unwrap_err().code(), Code::ResourceExhausted, "an answer that is too large");
    assert_eq!(echo(&client, 3).await.unwrap(), blob(3), "the connection goes on");
}

#[tokio::test]
async fn a_lost_connection_fails_every_call_at_once() {
    let site = Site::new();
    let (io, serving) = site.connection(1024);
    let client = Client::new(io);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(
                async move { client.call::<_, Text>(SERVICE, "Hang", &text(""), CallOptions::default()).await },
            )
        })
        .collect();
    reaches(&site.hanging, 20).await;
    assert!(!client.is_closed());
    serving.abort();
    soon(client.closed()).await;
    for call in calls {
        assert!(soon(call).await.unwrap().unwrap_err().is_closed());
    }
    assert!(echo(&client, 1).await.unwrap_err().is_closed(), "and calls that come later");
    reaches(&site.hanging, 0).await;
}

#[tokio::test]
async fn closing_and_dropping_clients_ends_the_connection() {
    let site = Site::new();
    let (io, serving) = site.connection(1024);
    let client = Client::new(io);
    let clone = client.clone();
    drop(client);
    assert_eq!(echo(&clone, 1).await.unwrap(), blob(1), "a clone keeps it");
    drop(clone);
    soon(serving).await.unwrap();

    let (io, serving) = site.connection(1024);
    let client = Client::new(io);
    let clone = client.clone();
    client.close();
    assert!(echo(&clone, 1).await.unwrap_err().is_closed());
    soon(serving).await.unwrap();
}

#[tokio::test]
async fn a_thousand_calls_at_the_same_time() {
    let site = Site::new();
    let client = site.client();
    let calls: Vec<_> = (0..1000u64)
        .map(|index| {
            let client = client.clone();
            tokio::spawn(async move {
                let request = number(index);
                let answer: Number = client.call(SERVICE, "Gate", &request, CallOptions::default()).await.unwrap();
                assert_eq!(answer, request);
            })
        })
        .collect();
    reaches(&site.gated, 1000).await;
    site.gate.notify_waiters();
    for call in calls {
        soon(call).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_many_threads_over_a_unix_socket() {
    let site = Site::with(Server::require_same_uid);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (server, shutdown) = (site.server.clone(), site.shutdown.clone());
    let serving = tokio::spawn(async move { server.serve(listener, shutdown).await });
    let client = Client::connect(&path).await.unwrap();
    let calls: Vec<_> = (0..1000)
        .map(|index| {
            let client = client.clone();
            tokio::spawn(async move { assert_eq!(echo(&client, index).await.unwrap(), blob(index)) })
        })
        .collect();
    for call in calls {
        soon(call).await.unwrap();
    }
    site.shutdown.cancel();
    soon(serving).await.unwrap();
    soon(client.closed()).await;
    let Err(Error::Connect { .. }) = Client::connect(&path).await else { panic!("nobody listens") };
}

#[tokio::test]
async fn abstract_sockets_are_reached() {
    let site = Site::new();
    let name = format!("kevel-ttrpc-test-{}", std::process::id());
    let listener = UnixListener::bind(format!("\0{name}")).unwrap();
    let (server, shutdown) = (site.server.clone(), site.shutdown.clone());
    let serving = tokio::spawn(async move { server.serve(listener, shutdown).await });
    let client = Client::connect_abstract(&name).await.unwrap();
    assert_eq!(echo(&client, 5).await.unwrap(), blob(5));
    site.shutdown.cancel();
    soon(serving).await.unwrap();
}
