//! The network of a bare node: what pods get when nobody configured anything.

use super::{ConfigError, NetworkList};
use crate::field::{FieldError, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// A bridge with addresses from local ranges and host ports, of the stock plugins bridge, host-local and portmap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fallback {
    /// The network's name.
    pub name: String,
    /// The bridge's name.
    pub bridge: String,
    /// A range of addresses for pods each, such as `10.88.0.0/16`; at most one of each address family.
    pub subnets: Vec<String>,
    /// Where host-local keeps its reservations; its own default is `/var/lib/cni/networks`.
    pub data_dir: Option<PathBuf>,
}

impl Default for Fallback {
    fn default() -> Self {
        Self {
            name: "kevel".to_owned(),
            bridge: "kevel0".to_owned(),
            subnets: vec!["10.88.0.0/16".to_owned()],
            data_dir: None,
        }
    }
}

impl Fallback {
    /// The configuration list. It says version 1.0.0, which the plugins of all current distributions speak.
    ///
    /// # Errors
    /// [`ConfigError::Field`] for a bad name, bridge or subnet.
    pub fn network(&self) -> Result<NetworkList, ConfigError> {
        crate::name::check_interface("bridge", &self.bridge)?;
        let (mut ranges, mut routes) = (Vec::new(), Vec::new());
        let raw: Map<String, Value> = [("subnets".to_owned(), json!(self.subnets))].into_iter().collect();
        let mut families = Vec::new();
        for node in Object::root(&raw).list("subnets")? {
            let (address, prefix) = node.cidr()?;
            if families.contains(&address.is_ipv4()) {
                return Err(node.error("a second subnet of the same address family").into());
            }
            families.push(address.is_ipv4());
            ranges.push(json!([{ "subnet": format!("{address}/{prefix}") }]));
            routes.push(json!({ "dst": if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" } }));
        }
        if ranges.is_empty() {
            return Err(FieldError::new("subnets", "empty").into());
        }
        let mut ipam = json!({ "type": "host-local", "ranges": ranges, "routes": routes });
        if let Some(dir) = &self.data_dir {
            ipam["dataDir"] = json!(dir);
        }
        let list = json!({
            "cniVersion": "1.0.0",
            "name": self.name,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "ipam": ipam,
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        NetworkList::parse(list.to_string().as_bytes())
    }
}
