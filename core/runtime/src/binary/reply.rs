//! What a shim binary answers to `start`: a message, JSON, or the bare address, whichever its age speaks.

use kevel_proto::shim::bootstrap::BootstrapResult;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::error::ReplyError;

/// The longest answer that is read, in bytes.
pub(crate) const MAX_REPLY: usize = 1 << 20;
/// How much of an answer an error repeats, in characters.
const EXCERPT: usize = 256;
/// The newest version of the task API.
const NEWEST: i32 = 3;

/// How to reach a started shim; what `bootstrap.json` in a bundle holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Version of the task API: 2 or 3.
    pub version: u32,
    /// Where it listens.
    pub address: String,
    /// What it speaks there.
    pub protocol: Protocol,
}

/// What is spoken on a shim's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// ttrpc.
    Ttrpc,
    /// gRPC.
    Grpc,
}

/// An answer as it came, before anything is believed.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    version: i32,
    #[serde(default)]
    address: String,
    #[serde(default)]
    protocol: String,
}

impl Bootstrap {
    /// Reads an answer to `start`. Shims of containerd 2.3 and later answer a protobuf message, others JSON, the oldest
    /// the address alone (which means version 2 over ttrpc). Lines of noise around the last two are skipped.
    pub(crate) fn parse(reply: &[u8]) -> Result<Self, ReplyError> {
        if reply.len() > MAX_REPLY {
            return Err(ReplyError::TooLong(MAX_REPLY));
        }
        if reply.trim_ascii().is_empty() {
            return Err(ReplyError::Empty);
        }
        // By the first byte: an address or an opening brace could by chance also be a message.
        let looks_like_text = is_json(reply.trim_ascii()) || is_address(reply.trim_ascii());
        if !looks_like_text
            && let Ok(message) = BootstrapResult::decode(reply)
            && !message.address.is_empty()
        {
            return Self::check(Raw { version: message.version, address: message.address, protocol: message.protocol });
        }
        Self::from_text(reply)
    }

    /// Reads the content of `bootstrap.json`, or of the older file `address`.
    pub(crate) fn from_text(text: &[u8]) -> Result<Self, ReplyError> {
        let text = text.trim_ascii();
        if is_json(text)
            && let Ok(raw) = serde_json::from_slice::<Raw>(text)
            && !raw.address.is_empty()
        {
            return Self::check(raw);
        }
        for line in text.split(|byte| *byte == b'\n').rev().map(<[u8]>::trim_ascii) {
            if is_json(line)
                && let Ok(raw) = serde_json::from_slice::<Raw>(line)
                && !raw.address.is_empty()
            {
                return Self::check(raw);
            }
            if is_address(line)
                && let Ok(address) = std::str::from_utf8(line)
            {
                return Self::check(Raw { version: 2, address: address.to_owned(), protocol: String::new() });
            }
        }
        Err(ReplyError::Garbage(String::from_utf8_lossy(text).chars().take(EXCERPT).collect()))
    }

    fn check(raw: Raw) -> Result<Self, ReplyError> {
        let protocol = match raw.protocol.as_str() {
            "" | "ttrpc" => Protocol::Ttrpc,
            "grpc" => Protocol::Grpc,
            _ => return Err(ReplyError::Protocol(raw.protocol.chars().take(EXCERPT).collect())),
        };
        let version = match raw.version {
            0 | 2 => 2, // JSON without a version is older than the field
            NEWEST => 3,
            other => return Err(ReplyError::Version(other)),
        };
        Ok(Self { version, address: raw.address, protocol })
    }
}

fn is_json(text: &[u8]) -> bool {
    text.first() == Some(&b'{')
}

/// Whether a line can be an address: it has a scheme, or is an absolute path (the name of an abstract socket).
fn is_address(line: &[u8]) -> bool {
    let schemes: [&[u8]; 4] = [b"unix://", b"vsock://", b"hvsock://", b"/"];
    schemes.iter().any(|scheme| line.starts_with(scheme)) && !line.iter().any(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(version: i32, address: &str, protocol: &str) -> Vec<u8> {
        let (address, protocol) = (address.to_owned(), protocol.to_owned());
        BootstrapResult { version, address, protocol, ..BootstrapResult::default() }.encode_to_vec()
    }

    #[test]
    fn replies() {
        let check = |reply: &[u8], version, address: &str, protocol| {
            let want = Bootstrap { version, address: address.into(), protocol };
            assert_eq!(Bootstrap::parse(reply), Ok(want), "{:?}", String::from_utf8_lossy(reply));
        };
        use Protocol::{Grpc, Ttrpc};
        check(&message(3, "unix:///s", "ttrpc"), 3, "unix:///s", Ttrpc);
        check(&message(2, "unix:///s", "grpc"), 2, "unix:///s", Grpc);
        check(br#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#, 3, "unix:///s", Ttrpc);
        check(b" {\"version\":2,\"address\":\"unix:///s\"}\n", 2, "unix:///s", Ttrpc);
        check(br#"{"address":"unix:///s"}"#, 2, "unix:///s", Ttrpc);
        check(b"unix:///s\n", 2, "unix:///s", Ttrpc);
        check(b"/containerd-shim/abc", 2, "/containerd-shim/abc", Ttrpc);
        check(b"level=warning msg=\"x y\"\nunix:///s\n", 2, "unix:///s", Ttrpc);
        check(b"warning\n{\"version\":3,\"address\":\"unix:///s\"}\nbye\n", 3, "unix:///s", Ttrpc);
    }

    #[test]
    fn refused_replies() {
        let check = |reply: &[u8], want| assert_eq!(Bootstrap::parse(reply), Err(want));
        check(b" \n", ReplyError::Empty);
        check(&message(4, "unix:///s", ""), ReplyError::Version(4));
        check(br#"{"version":4,"address":"unix:///s"}"#, ReplyError::Version(4));
        check(br#"{"version":3,"address":"unix:///s","protocol":"smtp"}"#, ReplyError::Protocol("smtp".into()));
        check(b"what?", ReplyError::Garbage("what?".into()));
        check(br#"{"version":3}"#, ReplyError::Garbage(r#"{"version":3}"#.into()));
        check(&vec![b'x'; MAX_REPLY + 1], ReplyError::TooLong(MAX_REPLY));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(reply in prop::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(bootstrap) = Bootstrap::parse(&reply) {
                prop_assert!(!bootstrap.address.is_empty());
                prop_assert!((2..=3).contains(&bootstrap.version));
            }
        }

        #[test]
        fn every_form_says_the_same(version in 2..=3, path in "/[a-z0-9/]{1,40}", noise in "[a-z =]{0,40}") {
            let address = format!("unix://{path}");
            let want = Bootstrap { version: version as u32, address: address.clone(), protocol: Protocol::Ttrpc };
            let json = serde_json::to_string(&want).unwrap();
            prop_assert_eq!(Bootstrap::parse(&message(version, &address, "ttrpc")), Ok(want.clone()));
            prop_assert_eq!(Bootstrap::parse(format!("{noise}\n{json}\n").as_bytes()), Ok(want.clone()));
            let text = Bootstrap::parse(format!("{noise}\n{address}\n{noise}\n").as_bytes());
            prop_assert_eq!(text, Ok(Bootstrap { version: 2, ..want }));
        }
    }
}
