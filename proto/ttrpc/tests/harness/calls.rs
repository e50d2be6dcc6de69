//! Calls that any server of the test service must answer the same way.

use super::{Blob, Number, SERVICE, Text, blob, number, reaches_end, soon, text};
use kevel_ttrpc::{CallOptions, Client, Code};
use std::time::Duration;

/// Runs every call against a foreign server.
pub async fn check_server(client: &Client) {
    check_unary(client).await;
    check_concurrency(client).await;
    check_streams(client).await;
}

async fn check_unary(client: &Client) {
    for length in [0, 1, 5000, (4 << 20) - 1000] {
        let answer: Blob = soon(client.call(SERVICE, "Echo", &blob(length), CallOptions::default())).await.unwrap();
        assert_eq!(answer.value.len(), length);
    }
    let ask = async |service: &str, method: &str, options| -> Result<Text, _> {
        soon(client.call(service, method, &text("containerd-namespace-ttrpc"), options)).await
    };
    let none = CallOptions::default;
    let error = ask(SERVICE, "Fail", none()).await.unwrap_err();
    assert_eq!((error.code(), error.to_string()), (Code::NotFound, "NotFound: containerd-namespace-ttrpc".into()));
    assert_eq!(ask(SERVICE, "Missing", none()).await.unwrap_err().code(), Code::Unimplemented);
    let named = none().with("containerd-namespace-ttrpc", "k8s.io");
    assert_eq!(ask(SERVICE, "Meta", named).await.unwrap(), text("k8s.io"));
    let limit = CallOptions::timeout(Duration::from_secs(9));
    assert_eq!(ask(SERVICE, "HasDeadline", limit).await.unwrap(), text("yes"));
    assert_eq!(ask(SERVICE, "HasDeadline", none()).await.unwrap(), text("no"));
    let limit = CallOptions::timeout(Duration::from_millis(100));
    assert_eq!(ask(SERVICE, "Hang", limit).await.unwrap_err().code(), Code::DeadlineExceeded);
}

async fn check_concurrency(client: &Client) {
    let calls: Vec<_> = (0..300)
        .map(|length| {
            let client = client.clone();
            tokio::spawn(async move {
                let answer: Blob = client.call(SERVICE, "Echo", &blob(length), CallOptions::default()).await.unwrap();
                assert_eq!(answer.value.len(), length);
            })
        })
        .collect();
    for call in calls {
        soon(call).await.unwrap();
    }
}

async fn check_streams(client: &Client) {
    let request = number(500);
    let mut count = client.server_stream(SERVICE, "Count", &request, CallOptions::default()).await.unwrap();
    for value in 1..=500 {
        assert_eq!(soon(count.recv::<Number>()).await.unwrap(), Some(number(value)));
    }
    reaches_end(&mut count).await;

    let mut sum = client.stream(SERVICE, "Sum", CallOptions::default()).await.unwrap();
    for value in 1..=500 {
        sum.send(&number(value)).await.unwrap();
    }
    assert_eq!(soon(sum.finish::<Number>()).await.unwrap(), number(125_250));

    let mut chat = client.stream(SERVICE, "Chat", CallOptions::default()).await.unwrap();
    for line in ["a", "", "b"] {
        chat.send(&text(line)).await.unwrap();
        assert_eq!(soon(chat.recv()).await.unwrap(), Some(text(&line.to_uppercase())));
    }
    chat.close_send().await.unwrap();
    reaches_end(&mut chat).await;

    let mut chat = client.stream(SERVICE, "Chat", CallOptions::default()).await.unwrap();
    chat.send(&text("quit")).await.unwrap();
    assert_eq!(soon(chat.recv::<Text>()).await.unwrap_err().code(), Code::Aborted);
}
