//! The `ttrpc` crate's end of the interoperability tests: `ttrpc-peer serve SOCKET` serves the test service until its
//! stdin ends, `ttrpc-peer call SOCKET` calls it and fails at the first answer that is not the expected one.

mod call;
mod serve;

use protobuf::well_known_types::wrappers::{BytesValue, StringValue, UInt64Value};

/// Errors of a test program are for reading only.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The service that both ends know.
pub const SERVICE: &str = "kevel.test.Echo";

// One thread: the crate's server hands each data message to a task of its own, and on several threads these overtake
// each other, so that the end of a stream may come before its last messages.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", socket] => serve::serve(socket).await,
        ["call", socket] => call::call(socket).await,
        _ => Err("usage: ttrpc-peer serve|call SOCKET".into()),
    }
}

pub fn text(value: &str) -> StringValue {
    StringValue { value: value.into(), ..Default::default() }
}

pub fn number(value: u64) -> UInt64Value {
    UInt64Value { value, ..Default::default() }
}

pub fn blob(length: usize) -> BytesValue {
    BytesValue { value: vec![0x5a; length], ..Default::default() }
}
