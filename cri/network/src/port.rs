//! Host ports of a pod, as the `portMappings` capability has them.

use crate::FieldError;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;

/// A port of the pod on the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// The port on the host; 0 means that the port is not mapped.
    pub host_port: u16,
    /// The port in the pod.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The host's address to listen on; `None` means all.
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// The capability argument; `None` when no port is mapped.
pub(crate) fn capability(mappings: &[PortMapping]) -> Result<Option<Value>, FieldError> {
    let mut taken = HashSet::new();
    let mut entries = Vec::new();
    for (i, mapping) in mappings.iter().enumerate() {
        if mapping.host_port == 0 {
            continue;
        }
        let field = format!("port_mappings[{i}]");
        if mapping.container_port == 0 {
            return Err(FieldError::new(format!("{field}.container_port"), "0 is not a port"));
        }
        if !taken.insert((mapping.host_ip, mapping.host_port, mapping.protocol)) {
            let reason = format!("host port {} is mapped twice", mapping.host_port);
            return Err(FieldError::new(format!("{field}.host_port"), reason));
        }
        let mut entry = json!({
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": mapping.protocol,
        });
        if let Some(ip) = mapping.host_ip {
            entry["hostIP"] = ip.to_string().into();
        }
        entries.push(entry);
    }
    Ok(if entries.is_empty() { None } else { Some(Value::Array(entries)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(host: u16, container: u16, protocol: Protocol, ip: Option<&str>) -> PortMapping {
        let host_ip = ip.map(|ip| ip.parse().unwrap());
        PortMapping { host_port: host, container_port: container, protocol, host_ip }
    }

    #[test]
    fn host_ports() {
        let check = |mappings: &[PortMapping], want: Result<Option<Value>, &str>| {
            assert_eq!(capability(mappings).map_err(|e| e.to_string()), want.map_err(str::to_owned));
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        check(&[], Ok(None));
        check(&[map(0, 80, tcp, None), map(0, 80, tcp, None)], Ok(None));
        check(
            &[map(8080, 80, tcp, None), map(8080, 80, udp, None), map(8080, 80, tcp, Some("10.0.0.1"))],
            Ok(Some(json!([
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "10.0.0.1"},
            ]))),
        );
        check(
            &[map(8080, 80, tcp, None), map(8080, 81, tcp, None)],
            Err("port_mappings[1].host_port: host port 8080 is mapped twice"),
        );
        check(&[map(8080, 0, tcp, None)], Err("port_mappings[0].container_port: 0 is not a port"));
    }
}
