//! Streams of each kind, their ends, and what happens when one side does not play along.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod harness;

use harness::{Number, SERVICE, Site, Text, blob, number, reaches, soon, text};
use kevel_ttrpc::{CallOptions, Client, Code, Error, Limits};
use std::time::Duration;

#[tokio::test]
async fn the_server_streams() {
    let client = Site::new().client();
    for upto in [0, 1, 5, 2000] {
        let request = number(upto);
        let mut stream = client.server_stream(SERVICE, "Count", &request, CallOptions::default()).await.unwrap();
        for value in 1..=upto {
            assert_eq!(soon(stream.recv::<Number>()).await.unwrap(), Some(number(value)));
        }
        assert_eq!(soon(stream.recv::<Number>()).await.unwrap(), None);
        assert_eq!(soon(stream.recv::<Number>()).await.unwrap(), None, "and stays ended");
        assert!(matches!(stream.send(&number(1)).await, Err(Error::Ended)));
    }
}

#[tokio::test]
async fn the_client_streams() {
    let client = Site::new().client();
    for upto in [0, 1, 2000] {
        let mut stream = client.stream(SERVICE, "Sum", CallOptions::default()).await.unwrap();
        for value in 1..=upto {
            stream.send(&number(value)).await.unwrap();
        }
        assert_eq!(soon(stream.finish::<Number>()).await.unwrap(), number(upto * (upto + 1) / 2));
    }
}

#[tokio::test]
async fn both_stream() {
    let client = Site::new().client();
    let mut stream = client.stream(SERVICE, "Chat", CallOptions::default()).await.unwrap();
    for line in ["a", "", "b"] {
        stream.send(&text(line)).await.unwrap();
        assert_eq!(soon(stream.recv()).await.unwrap(), Some(text(&line.to_uppercase())), "an empty message is one");
    }
    stream.close_send().await.unwrap();
    stream.close_send().await.unwrap();
    assert!(matches!(stream.send(&text("late")).await, Err(Error::Ended)));
    assert_eq!(soon(stream.recv::<Text>()).await.unwrap(), None);
}

#[tokio::test]
async fn halves_work_at_the_same_time() {
    let client = Site::new().client();
    let (mut sender, mut receiver) = client.stream(SERVICE, "Chat", CallOptions::default()).await.unwrap().split();
    let sending = tokio::spawn(async move {
        for index in 0..3000 {
            sender.send(&text(&format!("line {index}"))).await.unwrap();
        }
        sender.close_send().await.unwrap();
    });
    for index in 0..3000 {
        assert_eq!(soon(receiver.recv()).await.unwrap(), Some(text(&format!("LINE {index}"))));
    }
    assert_eq!(soon(receiver.recv::<Text>()).await.unwrap(), None);
    sending.await.unwrap();
}

#[tokio::test]
async fn an_error_ends_a_stream() {
    let client = Site::new().client();
    let check = async |method: &str, line: &str, code: Code| {
        let mut stream = client.stream(SERVICE, method, CallOptions::default()).await.unwrap();
        stream.send(&text(line)).await.unwrap();
        assert_eq!(soon(stream.recv::<Text>()).await.unwrap_err().code(), code, "{method}");
        assert!(matches!(stream.send(&text("late")).await, Err(Error::Ended)));
        assert_eq!(soon(stream.recv::<Text>()).await.unwrap(), None);
    };
    check("Chat", "quit", Code::Aborted).await;
    check("Missing", "", Code::Unimplemented).await;
    check("Panic", "", Code::Internal).await;
    check("Sum", "text", Code::InvalidArgument).await;
    let request = number(1);
    let mut stream = client.server_stream(SERVICE, "Count", &request, CallOptions::default()).await.unwrap();
    assert_eq!(soon(stream.recv()).await.unwrap(), Some(number(1)), "the connection goes on");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_stream_goes_on() {
    let client = Site::new().client();
    let mut stream = client.stream(SERVICE, "Chat", CallOptions::default()).await.unwrap();
    assert_eq!(stream.send(&blob(4 << 20)).await.unwrap_err().code(), Code::ResourceExhausted);
    stream.send(&text("a")).await.unwrap();
    assert_eq!(soon(stream.recv()).await.unwrap(), Some(text("A")));
}

#[tokio::test]
async fn a_deadline_ends_a_stream() {
    let site = Site::new();
    let client = site.client();
    let options = CallOptions::timeout(Duration::from_millis(100));
    let mut stream = client.stream(SERVICE, "Deaf", options).await.unwrap();
    assert_eq!(soon(stream.recv::<Text>()).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(stream.send(&text("late")).await.unwrap_err().code(), Code::DeadlineExceeded);
    reaches(&site.hanging, 0).await;
}

#[tokio::test]
async fn a_dropped_stream_tells_the_server() {
    let site = Site::new();
    let (io, serving) = site.connection(64 * 1024);
    let client = Client::new(io);
    let mut stream = client.stream(SERVICE, "Chat", CallOptions::default()).await.unwrap();
    stream.send(&text("a")).await.unwrap();
    drop(stream);
    site.shutdown.cancel(); // returns before the drain is over only when `Chat` saw the end
    tokio::time::timeout(Duration::from_secs(5), serving).await.expect("the handler ended").unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_not_the_end_of_a_stream() {
    let site = Site::new();
    let (io, serving) = site.connection(64 * 1024);
    let client = Client::new(io);
    let mut stream = client.stream(SERVICE, "Deaf", CallOptions::default()).await.unwrap();
    reaches(&site.hanging, 1).await;
    serving.abort();
    assert!(soon(stream.recv::<Text>()).await.unwrap_err().is_closed());
    assert!(stream.send(&text("late")).await.unwrap_err().is_closed());
}

#[tokio::test]
async fn a_stream_that_is_not_received_ends_and_the_others_go_on() {
    let limits = Limits { stall: Duration::from_millis(100), ..Limits::default() };
    let site = Site::with(|server| server.limits(limits));

    // The client does not receive.
    let client = site.client_with(limits);
    let request = number(0);
    let mut flood = client.server_stream(SERVICE, "Flood", &request, CallOptions::default()).await.unwrap();
    for _ in 0..3 {
        let sum = client.stream(SERVICE, "Sum", CallOptions::default()).await.unwrap();
        assert_eq!(soon(sum.finish::<Number>()).await.unwrap(), number(0));
    }
    let error = loop {
        match soon(flood.recv::<harness::Blob>()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a flood has no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::ResourceExhausted);

    // The handler does not receive.
    let client = site.client_with(limits);
    let mut deaf = client.stream(SERVICE, "Deaf", CallOptions::default()).await.unwrap();
    let error = loop {
        if let Err(error) = soon(deaf.send(&blob(256 * 1024))).await {
            break error;
        }
    };
    assert!(matches!(error, Error::Ended));
    assert_eq!(soon(deaf.recv::<Text>()).await.unwrap_err().code(), Code::ResourceExhausted);
    reaches(&site.hanging, 0).await;
    let sum = client.stream(SERVICE, "Sum", CallOptions::default()).await.unwrap();
    assert_eq!(soon(sum.finish::<Number>()).await.unwrap(), number(0));
}
