//! JSON to [`Outcome`]: three shapes of results, from `ip4`/`ip6` (0.1, 0.2) over typed `ips` (0.3, 0.4) to 1.x.

use super::{Dns, Interface, IpConfig, Outcome, Route};
use crate::SpecVersion;
use crate::field::{FieldError, Node, Object};
use serde_json::{Map, Value};

/// The version of a result; that of the configuration when it does not say.
pub(super) fn version(raw: &Map<String, Value>, config: SpecVersion) -> Result<SpecVersion, FieldError> {
    let text = Object::root(raw).string("cniVersion")?;
    if text.is_empty() {
        return Ok(config);
    }
    SpecVersion::parse(&text)
        .filter(|v| v.is_supported())
        .ok_or_else(|| FieldError::new("cniVersion", format!("{text:?} is not a supported version")))
}

pub(super) fn outcome(raw: &Map<String, Value>, version: SpecVersion) -> Result<Outcome, FieldError> {
    let root = Object::root(raw);
    if version <= SpecVersion::V0_2_0 { legacy(&root) } else { modern(&root, version) }
}

fn modern(root: &Object<'_>, version: SpecVersion) -> Result<Outcome, FieldError> {
    let interfaces = root.list("interfaces")?.iter().map(interface).collect::<Result<Vec<_>, _>>()?;
    let typed = version < SpecVersion::V1_0_0;
    let ips = root.list("ips")?;
    let ips = ips.iter().map(|node| ip(node, typed, interfaces.len())).collect::<Result<_, _>>()?;
    let routes = root.list("routes")?.iter().map(route).collect::<Result<_, _>>()?;
    Ok(Outcome { interfaces, ips, routes, dns: dns(root)? })
}

fn legacy(root: &Object<'_>) -> Result<Outcome, FieldError> {
    let mut outcome = Outcome { dns: dns(root)?, ..Outcome::default() };
    for (key, is_ipv4) in [("ip4", true), ("ip6", false)] {
        let Some(node) = root.get(key) else { continue };
        let object = node.object()?;
        let address_node = object.require("ip")?;
        let (address, prefix) = address_node.cidr()?;
        if address.is_ipv4() != is_ipv4 {
            return Err(address_node.error(format!("{address} is of the other address family")));
        }
        outcome.ips.push(IpConfig { address, prefix, gateway: object.ip("gateway")?, interface: None });
        for node in object.list("routes")? {
            outcome.routes.push(route(&node)?);
        }
    }
    Ok(outcome)
}

fn interface(node: &Node<'_>) -> Result<Interface, FieldError> {
    let object = node.object()?;
    Ok(Interface {
        name: object.require("name")?.string()?,
        mac: object.string("mac")?,
        mtu: object.uint("mtu")?,
        sandbox: object.string("sandbox")?,
        socket_path: object.string("socketPath")?,
        pci_id: object.string("pciID")?,
    })
}

fn ip(node: &Node<'_>, typed: bool, interfaces: usize) -> Result<IpConfig, FieldError> {
    let object = node.object()?;
    let (address, prefix) = object.require("address")?.cidr()?;
    // 0.3 and 0.4 require the family; everybody lets it pass when it is absent, as the address says it, too.
    if let Some(family) = object.get("version").filter(|_| typed) {
        let expected = if address.is_ipv4() { "4" } else { "6" };
        if family.string()? != expected {
            return Err(family.error(format!("not {expected:?}, which {address} is")));
        }
    }
    let interface = match object.get("interface") {
        Some(node) => {
            let index = node.uint()? as usize;
            if index >= interfaces {
                return Err(node.error(format!("index {index} of {interfaces} interfaces")));
            }
            Some(index)
        }
        None => None,
    };
    Ok(IpConfig { address, prefix, gateway: object.ip("gateway")?, interface })
}

fn route(node: &Node<'_>) -> Result<Route, FieldError> {
    let object = node.object()?;
    let (dst, prefix) = object.require("dst")?.cidr()?;
    Ok(Route {
        dst,
        prefix,
        gw: object.ip("gw")?,
        mtu: object.uint("mtu")?,
        advmss: object.uint("advmss")?,
        priority: object.uint("priority")?,
        table: object.uint("table")?,
        scope: object.uint("scope")?,
    })
}

fn dns(root: &Object<'_>) -> Result<Dns, FieldError> {
    let Some(node) = root.get("dns") else { return Ok(Dns::default()) };
    let object = node.object()?;
    Ok(Dns {
        nameservers: object.list("nameservers")?.iter().map(Node::ip).collect::<Result<_, _>>()?,
        domain: object.string("domain")?,
        search: object.strings("search")?,
        options: object.strings("options")?,
    })
}
