//! Calls of the `ttrpc` crate's client.

use crate::{Result, SERVICE, blob, number, text};
use protobuf::Message;
use protobuf::well_known_types::wrappers::{BytesValue, StringValue, UInt64Value};
use std::time::Duration;
use ttrpc::r#async::{Client, ClientStream, ClientStreamReceiver, ClientStreamSender};
use ttrpc::context::{self, Context};
use ttrpc::{Code, Error, Request};

pub async fn call(socket: &str) -> Result<()> {
    let client = Client::connect(&format!("unix://{socket}")).await?;
    echo(&client).await.map_err(|error| format!("echo: {error}"))?;
    println!("ok echo");
    errors(&client).await.map_err(|error| format!("errors: {error}"))?;
    println!("ok errors");
    metadata(&client).await.map_err(|error| format!("metadata: {error}"))?;
    println!("ok metadata");
    deadline(&client).await.map_err(|error| format!("deadline: {error}"))?;
    println!("ok deadline");
    count(&client).await.map_err(|error| format!("count: {error}"))?;
    println!("ok count");
    sum(&client).await.map_err(|error| format!("sum: {error}"))?;
    println!("ok sum");
    chat(&client).await.map_err(|error| format!("chat: {error}"))?;
    println!("ok chat");
    Ok(())
}

fn request(
    service: &str,
    method: &str,
    message: Option<&dyn protobuf::MessageDyn>,
    context: Context,
) -> Result<Request> {
    Ok(Request {
        service: service.into(),
        method: method.into(),
        payload: message.map_or(Ok(Vec::new()), |message| message.write_to_bytes_dyn())?,
        timeout_nano: context.timeout_nano,
        metadata: context::to_pb(context.metadata),
        ..Default::default()
    })
}

async fn unary<M: Message>(
    client: &Client,
    method: &str,
    message: &dyn protobuf::MessageDyn,
    context: Context,
) -> Result<M> {
    let response = client.request(request(SERVICE, method, Some(message), context)?).await?;
    Ok(M::parse_from_bytes(&response.payload)?)
}

fn limit() -> Context {
    context::with_duration(Duration::from_secs(20))
}

fn expect<T: PartialEq + std::fmt::Debug>(received: T, expected: T) -> Result<()> {
    if received == expected { Ok(()) } else { Err(format!("expected {expected:?}, received {received:?}").into()) }
}

async fn echo(client: &Client) -> Result<()> {
    for length in [0, 1, 5000, (4 << 20) - 1000] {
        let answer: BytesValue = unary(client, "Echo", &blob(length), limit()).await?;
        expect(answer.value.len(), length)?;
    }
    Ok(())
}

async fn errors(client: &Client) -> Result<()> {
    let check = async |service: &str, method: &str, expected: Code| -> Result<()> {
        let request = request(service, method, Some(&text("why")), limit())?;
        match client.request(request).await {
            Err(Error::RpcStatus(status)) => expect(status.code(), expected),
            other => Err(format!("{method}: expected {expected:?}, received {other:?}").into()),
        }
    };
    check(SERVICE, "Fail", Code::NOT_FOUND).await?;
    check(SERVICE, "Missing", Code::UNIMPLEMENTED).await?;
    check("kevel.test.Other", "Echo", Code::UNIMPLEMENTED).await?;
    check(SERVICE, "Panic", Code::INTERNAL).await
}

async fn metadata(client: &Client) -> Result<()> {
    let mut context = limit();
    context.add("containerd-namespace-ttrpc".into(), "k8s.io".into());
    let answer: StringValue = unary(client, "Meta", &text("containerd-namespace-ttrpc"), context).await?;
    expect(answer.value.as_str(), "k8s.io")
}

async fn deadline(client: &Client) -> Result<()> {
    let answer: StringValue = unary(client, "HasDeadline", &text(""), limit()).await?;
    expect(answer.value.as_str(), "yes")?;
    let short = context::with_duration(Duration::from_millis(50));
    let late: Result<StringValue> = unary(client, "Hang", &text(""), short).await;
    expect(late.is_err(), true)
}

async fn count(client: &Client) -> Result<()> {
    let inner = client.new_stream(request(SERVICE, "Count", Some(&number(500)), limit())?, false, true).await?;
    let mut stream = ClientStreamReceiver::<UInt64Value>::new(inner, client.clone());
    for value in 1..=500 {
        expect(stream.recv().await?.map(|number| number.value), Some(value))?;
    }
    expect(stream.recv().await?, None)
}

async fn sum(client: &Client) -> Result<()> {
    let inner = client.new_stream(request(SERVICE, "Sum", None, limit())?, true, false).await?;
    let mut stream = ClientStreamSender::<UInt64Value, UInt64Value>::new(inner);
    for value in 1..=500 {
        stream.send(&number(value)).await?;
    }
    expect(stream.close_and_recv().await?.value, 125_250)
}

async fn chat(client: &Client) -> Result<()> {
    let inner = client.new_stream(request(SERVICE, "Chat", None, limit())?, true, true).await?;
    let mut stream = ClientStream::<StringValue, StringValue>::new(inner);
    for line in ["a", "", "b"] {
        stream.send(&text(line)).await?;
        expect(stream.recv().await?.value, line.to_uppercase())?;
    }
    stream.close_send().await?;
    match stream.recv().await {
        Err(Error::Eof) => Ok(()),
        other => Err(format!("expected the end, received {other:?}").into()),
    }
}
