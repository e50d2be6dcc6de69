//! The envelope messages of ttrpc and `google.rpc.Status`, as prost structs. Field numbers are the wire format.

use bytes::Bytes;
use prost::Message;

/// Opens a call or a stream.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    /// Full service name, such as `containerd.task.v3.Task`.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Method name, without the service.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The encoded request message.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// How long the caller will wait, in nanoseconds; zero means without limit.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    /// Pairs beside the message, in the order in which they were added; keys may repeat.
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// A metadata pair.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// The key; lower case by convention.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Answers a call, or ends a stream with a message or an error.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Response {
    /// Absent or code zero when the call succeeded.
    #[prost(message, optional, tag = "1")]
    pub status: Option<RpcStatus>,
    /// The encoded response message.
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: Bytes,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RpcStatus {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Text for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Typed details.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Detail>,
}

/// A detail of a status: `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Detail {
    /// What `value` is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}
