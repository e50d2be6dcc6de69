//! A protobuf message inside a JSON document.

use std::ops::Deref;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A message that is written as base64 of its protobuf form.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stored<M>(pub(crate) M);

impl<M> Deref for Stored<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: Message> Serialize for Stored<M> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(self.0.encode_to_vec()))
    }
}

impl<'de, M: Message + Default> Deserialize<'de> for Stored<M> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
        M::decode(bytes.as_slice()).map(Self).map_err(D::Error::custom)
    }
}
