//! The test service on the `ttrpc` crate.

use crate::{Result, SERVICE, number, text};
use async_trait::async_trait;
use protobuf::Message;
use protobuf::well_known_types::wrappers::{StringValue, UInt64Value};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use ttrpc::r#async::{
    MethodHandler, Server, ServerStream, ServerStreamReceiver, ServerStreamSender, Service, StreamHandler, StreamInner,
    TtrpcContext,
};
use ttrpc::{Code, Error, Request, Response, get_status};

pub async fn serve(socket: &str) -> Result<()> {
    let methods = ["Echo", "Fail", "Meta", "HasDeadline", "Hang"];
    let streams = ["Count", "Sum", "Chat"];
    let service = Service {
        methods: methods.map(|name| (name.to_string(), Box::new(Unary(name)) as Box<_>)).into(),
        streams: streams.map(|name| (name.to_string(), Arc::new(Streaming(name)) as Arc<_>)).into(),
    };
    let services = HashMap::from([(SERVICE.to_string(), service)]);
    let mut server = Server::new().bind(&format!("unix://{socket}"))?.register_service(services);
    server.start().await?;
    println!("ready");
    while tokio::io::stdin().read(&mut [0; 64]).await? > 0 {}
    server.shutdown().await?;
    Ok(())
}

struct Unary(&'static str);

#[async_trait]
impl MethodHandler for Unary {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let asked = || StringValue::parse_from_bytes(&request.payload).map_err(broken);
        let payload = match self.0 {
            "Echo" => request.payload,
            "Fail" => {
                let status = get_status(Code::NOT_FOUND, asked()?.value);
                return Ok(Response { status: Some(status).into(), ..Default::default() });
            }
            "Meta" => {
                let values = context.metadata.get(&asked()?.value);
                encode(&text(values.and_then(|values| values.first()).map_or("absent", String::as_str)))?
            }
            "HasDeadline" => encode(&text(if context.timeout_nano > 0 { "yes" } else { "no" }))?,
            _ => std::future::pending().await,
        };
        Ok(Response { payload, ..Default::default() })
    }
}

struct Streaming(&'static str);

#[async_trait]
impl StreamHandler for Streaming {
    async fn handler(&self, _: TtrpcContext, mut stream: StreamInner) -> ttrpc::Result<Option<Response>> {
        match self.0 {
            "Count" => {
                let upto = UInt64Value::parse_from_bytes(&stream.recv().await?).map_err(broken)?;
                let stream = ServerStreamSender::new(stream);
                for value in 1..=upto.value {
                    stream.send(&number(value)).await?;
                }
                Ok(None)
            }
            "Sum" => {
                let mut stream = ServerStreamReceiver::<UInt64Value>::new(stream);
                let mut sum = 0;
                while let Some(value) = stream.recv().await? {
                    sum += value.value;
                }
                Ok(Some(Response { payload: encode(&number(sum))?, ..Default::default() }))
            }
            _ => {
                let mut stream = ServerStream::<StringValue, StringValue>::new(stream);
                while let Some(line) = stream.recv().await? {
                    if line.value == "quit" {
                        let status = get_status(Code::ABORTED, "told to quit");
                        return Ok(Some(Response { status: Some(status).into(), ..Default::default() }));
                    }
                    stream.send(&text(&line.value.to_uppercase())).await?;
                }
                Ok(None)
            }
        }
    }
}

fn encode(message: &impl Message) -> ttrpc::Result<Vec<u8>> {
    message.write_to_bytes().map_err(broken)
}

fn broken(error: protobuf::Error) -> Error {
    Error::Others(error.to_string())
}
