//! The answer to `start`, in the daemon's dialect.

use kevel_proto::shim::bootstrap::BootstrapResult;
use prost::Message as _;
use serde::Serialize;

use crate::start::Dialect;

/// The answer for an address. Daemons that read JSON or text refuse versions after 2, or need none: every shim serves its
/// tasks under both names.
pub(crate) fn encode(dialect: Dialect, address: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Json<'a> {
        version: u32,
        address: &'a str,
        protocol: &'a str,
    }
    match dialect {
        // Without a line's end: some daemons take it for a part of the address.
        Dialect::Plain => address.as_bytes().to_vec(),
        Dialect::Json => {
            let json = Json { version: 2, address, protocol: "ttrpc" };
            serde_json::to_vec(&json).unwrap_or_default() // cannot fail: strings and a number
        }
        Dialect::Message => {
            let (address, protocol) = (address.to_owned(), "ttrpc".to_owned());
            BootstrapResult { version: 3, address, protocol, ..BootstrapResult::default() }.encode_to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects() {
        assert_eq!(encode(Dialect::Plain, "unix:///a"), b"unix:///a");
        assert_eq!(encode(Dialect::Json, "unix:///a"), br#"{"version":2,"address":"unix:///a","protocol":"ttrpc"}"#);
        let message = encode(Dialect::Message, "unix:///a");
        let message = BootstrapResult::decode(message.as_slice()).unwrap();
        assert_eq!((message.version, message.address.as_str(), message.protocol.as_str()), (3, "unix:///a", "ttrpc"));
    }
}
