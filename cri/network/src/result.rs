//! What plugins answer to ADD, in every version of the specification, as one type.
//!
//! [`Answer`] keeps the plugin's own JSON beside the parsed form: the next plugin of the chain, the record of the
//! attachment and the caller get what the plugin said, fields included that this runtime does not know.

mod parse;
mod render;

use crate::SpecVersion;
use crate::field::{FieldError, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// A validated answer of a plugin to ADD.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The specification version that the answer is written in.
    pub version: SpecVersion,
    /// The answer as the plugin wrote it, with `cniVersion` filled in.
    pub raw: Map<String, Value>,
    /// The answer as this runtime understands it.
    pub parsed: Outcome,
}

/// The result of ADD, independent of the specification version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Interfaces that were created, on the host too.
    pub interfaces: Vec<Interface>,
    /// Addresses that were assigned.
    pub ips: Vec<IpConfig>,
    /// Routes that were created.
    pub routes: Vec<Route>,
    /// What the network wants in the resolver's configuration.
    pub dns: Dns,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The name, in its own namespace.
    pub name: String,
    /// The hardware address; may be empty.
    pub mac: String,
    /// The MTU in bytes, if the plugin said it.
    pub mtu: Option<u32>,
    /// The network namespace; empty on the host.
    pub sandbox: String,
    /// A socket that stands for the interface; mostly empty.
    pub socket_path: String,
    /// The PCI address of the device; mostly empty.
    pub pci_id: String,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The address.
    pub address: IpAddr,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
    /// The default gateway of this network.
    pub gateway: Option<IpAddr>,
    /// The index into [`Outcome::interfaces`], which is checked to exist.
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination's address.
    pub dst: IpAddr,
    /// The destination's prefix length in bits.
    pub prefix: u8,
    /// The next hop, if it is not the gateway.
    pub gw: Option<IpAddr>,
    /// The MTU along the path in bytes.
    pub mtu: Option<u32>,
    /// The segment size to advertise in bytes.
    pub advmss: Option<u32>,
    /// Lower is preferred.
    pub priority: Option<u32>,
    /// The routing table.
    pub table: Option<u32>,
    /// 0 global, 253 link, 254 host.
    pub scope: Option<u32>,
}

/// Resolver configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers, most preferred first.
    pub nameservers: Vec<IpAddr>,
    /// The local domain; may be empty.
    pub domain: String,
    /// Search domains.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// Why an answer is not a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// There is none.
    #[error("empty answer")]
    Empty,
    /// Not JSON.
    #[error("not JSON: {excerpt:?}")]
    Syntax {
        /// How it begins.
        excerpt: String,
        /// Where the parser stopped.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotObject,
    /// A field is not right.
    #[error("invalid field")]
    Field(#[from] FieldError),
}

impl Answer {
    /// Parses and validates what a plugin printed. An answer without `cniVersion` is in the version of the `config`.
    ///
    /// # Errors
    /// [`ResultError`], naming the field.
    pub fn parse(bytes: &[u8], config: SpecVersion) -> Result<Self, ResultError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(ResultError::Empty);
        }
        Self::from_map(object(bytes)?, config)
    }

    /// The same, from JSON that is parsed already.
    ///
    /// # Errors
    /// [`ResultError::Field`].
    pub fn from_map(mut raw: Map<String, Value>, config: SpecVersion) -> Result<Self, ResultError> {
        let version = parse::version(&raw, config)?;
        raw.insert("cniVersion".to_owned(), version.to_string().into());
        let parsed = parse::outcome(&raw, version)?;
        Ok(Self { version, raw, parsed })
    }

    /// The answer in another version, for a configuration that changed its version after ADD. In its own version it
    /// is what the plugin wrote, to the letter.
    pub fn in_version(&self, version: SpecVersion) -> Map<String, Value> {
        if version == self.version { self.raw.clone() } else { render::outcome(&self.parsed, version) }
    }
}

/// Reads the answer to VERSION.
pub(crate) fn parse_versions(bytes: &[u8]) -> Result<Vec<SpecVersion>, ResultError> {
    let map = object(bytes)?;
    let listed = Object::root(&map).strings("supportedVersions")?;
    // Versions that this runtime has never heard of are none of its business.
    let mut versions: Vec<_> = listed.iter().filter_map(|text| SpecVersion::parse(text)).collect();
    if versions.is_empty() {
        // A plugin that lists nothing is from before VERSION.
        versions.push(SpecVersion::V0_1_0);
    }
    Ok(versions)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, ResultError> {
    let value = serde_json::from_slice(bytes).map_err(|source| ResultError::Syntax {
        excerpt: String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned(),
        source,
    })?;
    if let Value::Object(map) = value { Ok(map) } else { Err(ResultError::NotObject) }
}

#[cfg(test)]
mod tests;
