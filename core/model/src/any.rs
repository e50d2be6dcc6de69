//! A typed blob: what protobuf calls `Any`, without protobuf.

use serde::{Deserialize, Serialize};

/// A value whose type is named by a URL. Only the part of the URL after the last `/` names the type when the value is
/// protobuf; types registered as JSON use the whole URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Any {
    /// The type URL, as it stands on the wire.
    pub type_url: String,
    /// The encoded value.
    pub value: Vec<u8>,
}

impl Any {
    /// A value of the type that `type_url` names.
    pub fn new(type_url: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { type_url: type_url.into(), value: value.into() }
    }

    /// The type's name: the part of the URL after the last `/`.
    pub fn type_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or(&self.type_url)
    }
}
