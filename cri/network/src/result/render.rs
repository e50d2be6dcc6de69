//! [`Outcome`] to JSON in a given version; the inverse of `parse`.

use super::{Dns, Interface, IpConfig, Outcome, Route};
use crate::SpecVersion;
use serde_json::{Map, Value};

/// Fields that a version does not have are left out. 0.1 and 0.2 know one address of each family, the first is kept.
pub(super) fn outcome(outcome: &Outcome, version: SpecVersion) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("cniVersion".to_owned(), version.to_string().into());
    if version <= SpecVersion::V0_2_0 {
        for (key, is_ipv4) in [("ip4", true), ("ip6", false)] {
            if let Some(ip) = outcome.ips.iter().find(|ip| ip.address.is_ipv4() == is_ipv4) {
                let of_family = outcome.routes.iter().filter(|route| route.dst.is_ipv4() == is_ipv4);
                map.insert(key.to_owned(), legacy(ip, of_family));
            }
        }
    } else {
        let typed = version < SpecVersion::V1_0_0;
        insert_list(&mut map, "interfaces", outcome.interfaces.iter().map(interface));
        insert_list(&mut map, "ips", outcome.ips.iter().map(|c| ip(c, typed)));
        insert_list(&mut map, "routes", outcome.routes.iter().map(route));
    }
    if outcome.dns != Dns::default() {
        map.insert("dns".to_owned(), dns(&outcome.dns));
    }
    map
}

fn legacy<'a>(ip: &IpConfig, routes: impl Iterator<Item = &'a Route>) -> Value {
    let mut map = Map::new();
    map.insert("ip".to_owned(), format!("{}/{}", ip.address, ip.prefix).into());
    insert_some(&mut map, "gateway", ip.gateway.map(|g| g.to_string()));
    insert_list(&mut map, "routes", routes.map(route));
    Value::Object(map)
}

fn interface(interface: &Interface) -> Value {
    let mut map = Map::new();
    map.insert("name".to_owned(), interface.name.clone().into());
    let texts = [
        ("mac", &interface.mac),
        ("sandbox", &interface.sandbox),
        ("socketPath", &interface.socket_path),
        ("pciID", &interface.pci_id),
    ];
    for (key, text) in texts {
        insert_some(&mut map, key, Some(text.clone()).filter(|t| !t.is_empty()));
    }
    insert_some(&mut map, "mtu", interface.mtu);
    Value::Object(map)
}

fn ip(ip: &IpConfig, typed: bool) -> Value {
    let mut map = Map::new();
    if typed {
        map.insert("version".to_owned(), if ip.address.is_ipv4() { "4" } else { "6" }.into());
    }
    insert_some(&mut map, "interface", ip.interface);
    map.insert("address".to_owned(), format!("{}/{}", ip.address, ip.prefix).into());
    insert_some(&mut map, "gateway", ip.gateway.map(|g| g.to_string()));
    Value::Object(map)
}

fn route(route: &Route) -> Value {
    let mut map = Map::new();
    map.insert("dst".to_owned(), format!("{}/{}", route.dst, route.prefix).into());
    insert_some(&mut map, "gw", route.gw.map(|g| g.to_string()));
    let numbers = [
        ("mtu", route.mtu),
        ("advmss", route.advmss),
        ("priority", route.priority),
        ("table", route.table),
        ("scope", route.scope),
    ];
    for (key, number) in numbers {
        insert_some(&mut map, key, number);
    }
    Value::Object(map)
}

fn dns(dns: &Dns) -> Value {
    let mut map = Map::new();
    insert_list(&mut map, "nameservers", dns.nameservers.iter().map(|ip| ip.to_string().into()));
    insert_some(&mut map, "domain", Some(dns.domain.clone()).filter(|d| !d.is_empty()));
    insert_list(&mut map, "search", dns.search.iter().map(|s| s.clone().into()));
    insert_list(&mut map, "options", dns.options.iter().map(|s| s.clone().into()));
    Value::Object(map)
}

fn insert_some(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value.into());
    }
}

fn insert_list(map: &mut Map<String, Value>, key: &str, values: impl Iterator<Item = Value>) {
    let list: Vec<Value> = values.collect();
    if !list.is_empty() {
        map.insert(key.to_owned(), list.into());
    }
}
