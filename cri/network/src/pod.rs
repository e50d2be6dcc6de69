//! A pod as its networks see it: what the CRI server asks for, what it gets, and the translation in between.

use crate::name::check_arg;
use crate::port::{self, PortMapping};
use crate::result::{Answer, Dns, IpConfig, Route};
use crate::{Attachment, FieldError, IpPreference};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// What kind of burst containerd gives to shaped pods: no limit within 32 bits.
const BURST: u64 = i32::MAX as u64;

/// A pod to attach or detach. Detaching needs the id and the path of the namespace; the rest is on record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodNetwork {
    /// The sandbox id, `CNI_CONTAINERID`.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The pod's Kubernetes namespace.
    pub namespace: String,
    /// The pod's uid.
    pub uid: String,
    /// The network namespace's file.
    pub netns: PathBuf,
    /// Host ports; entries with host port 0 are none.
    pub port_mappings: Vec<PortMapping>,
    /// Traffic limits.
    pub bandwidth: Option<Bandwidth>,
    /// The pod's resolver configuration, for plugins that serve it.
    pub dns: Option<PodDns>,
    /// The pod's cgroup, for plugins that need it; empty when there is none.
    pub cgroup_parent: String,
    /// More capability arguments by name: `ips`, `mac`, `ipRanges`, `aliases`, `deviceID`, pod annotations.
    pub capability_args: BTreeMap<String, Value>,
    /// More `CNI_ARGS`, after those that every pod has.
    pub extra_args: Vec<(String, String)>,
}

/// Traffic limits in bits per second, as the kubernetes.io/ingress-bandwidth annotations mean them; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Into the pod.
    pub ingress_rate: u64,
    /// Out of the pod.
    pub egress_rate: u64,
}

/// Resolver configuration in the CRI's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodNetworkStatus {
    /// The pod's own address: the preferred one of `ips`.
    pub ip: IpAddr,
    /// All addresses of the pod's first network, the preferred one first.
    pub ips: Vec<IpAddr>,
    /// Interfaces of all networks, `lo` first, those on the host included.
    pub interfaces: Vec<PodInterface>,
    /// Routes of all networks.
    pub routes: Vec<Route>,
    /// Resolver configuration of each network that has one.
    pub dns: Vec<Dns>,
    /// What the last plugin of each network answered, by network name.
    pub results: Vec<(String, Map<String, Value>)>,
}

/// An interface of a pod, or one on the host that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodInterface {
    /// The network's name; empty for `lo`.
    pub network: String,
    /// The interface's name.
    pub name: String,
    /// The hardware address; may be empty.
    pub mac: String,
    /// The MTU in bytes, if known.
    pub mtu: Option<u32>,
    /// The network namespace; empty on the host.
    pub sandbox: String,
    /// Its addresses.
    pub ips: Vec<PodIp>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIp {
    /// The address.
    pub address: IpAddr,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
    /// The default gateway of this network.
    pub gateway: Option<IpAddr>,
}

impl PodNetwork {
    /// The attachment of the interface, all arguments checked.
    pub(crate) fn attachment(&self, ifname: &str) -> Result<Attachment, FieldError> {
        Ok(Attachment {
            container_id: self.id.clone(),
            ifname: ifname.to_owned(),
            netns: self.netns.clone(),
            args: self.args()?,
            capability_args: self.capabilities()?,
        })
    }

    /// The names are Kubernetes' convention since its first runtime.
    fn args(&self) -> Result<Vec<(String, String)>, FieldError> {
        let known = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", &self.namespace),
            ("K8S_POD_NAME", &self.name),
            ("K8S_POD_INFRA_CONTAINER_ID", &self.id),
            ("K8S_POD_UID", &self.uid),
        ];
        let mut args: Vec<_> = known.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        args.extend(self.extra_args.iter().cloned());
        for (i, (key, value)) in args.iter().enumerate() {
            check_arg(key, value)?;
            if args[..i].iter().any(|(earlier, _)| earlier == key) {
                return Err(FieldError::new(format!("args.{key}"), "given twice"));
            }
        }
        Ok(args)
    }

    fn capabilities(&self) -> Result<BTreeMap<String, Value>, FieldError> {
        let mut args = self.capability_args.clone();
        let mut insert = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                args.insert(name.to_owned(), value);
            }
        };
        insert("portMappings", port::capability(&self.port_mappings)?);
        insert("bandwidth", self.bandwidth.and_then(Bandwidth::capability));
        let dns = |dns: &PodDns| json!({ "servers": dns.servers, "searches": dns.searches, "options": dns.options });
        insert("dns", self.dns.as_ref().map(dns));
        insert("cgroupPath", Some(&self.cgroup_parent).filter(|path| !path.is_empty()).map(|path| json!(path)));
        Ok(args)
    }
}

impl Bandwidth {
    /// The bandwidth plugin refuses a rate without a burst and the other way round.
    fn capability(self) -> Option<Value> {
        let mut map = Map::new();
        for (rate, rate_key, burst_key) in
            [(self.ingress_rate, "ingressRate", "ingressBurst"), (self.egress_rate, "egressRate", "egressBurst")]
        {
            if rate > 0 {
                map.insert(rate_key.to_owned(), rate.into());
                map.insert(burst_key.to_owned(), BURST.into());
            }
        }
        if map.is_empty() { None } else { Some(Value::Object(map)) }
    }
}

/// What was attached, in the order of the networks.
pub(crate) struct Joined {
    pub(crate) network: String,
    pub(crate) ifname: String,
    pub(crate) answer: Answer,
}

impl PodNetworkStatus {
    /// `None` when the first network gave no address.
    pub(crate) fn new(netns: &str, joined: &[Joined], preference: IpPreference) -> Option<Self> {
        let first = joined.first()?;
        let ips = order(addresses(first), preference);
        let ip = *ips.first()?;
        let mut interfaces = vec![loopback(netns)];
        for join in joined {
            interfaces.extend(interfaces_of(join, netns));
        }
        let outcomes = || joined.iter().map(|join| &join.answer.parsed);
        Some(Self {
            ip,
            ips,
            interfaces,
            routes: outcomes().flat_map(|o| o.routes.clone()).collect(),
            dns: outcomes().map(|o| o.dns.clone()).filter(|dns| *dns != Dns::default()).collect(),
            results: joined.iter().map(|join| (join.network.clone(), join.answer.raw.clone())).collect(),
        })
    }
}

/// Addresses of the pod's interface: those on an interface of that name inside a namespace, and those of which the
/// plugin does not say where they are. A plugin that names the interface in its own way is believed, too.
fn addresses(join: &Joined) -> Vec<IpAddr> {
    let outcome = &join.answer.parsed;
    let interface_of = |index: Option<usize>| index.and_then(|i| outcome.interfaces.get(i));
    let own: Vec<IpAddr> = outcome
        .ips
        .iter()
        .filter(|ip| interface_of(ip.interface).is_none_or(|i| i.name == join.ifname))
        .map(|ip| ip.address)
        .collect();
    if !own.is_empty() {
        return own;
    }
    let inside = outcome.ips.iter().filter(|ip| interface_of(ip.interface).is_some_and(|i| !i.sandbox.is_empty()));
    inside.map(|ip| ip.address).collect()
}

fn order(mut ips: Vec<IpAddr>, preference: IpPreference) -> Vec<IpAddr> {
    let preferred = match preference {
        IpPreference::Ipv4 => ips.iter().position(IpAddr::is_ipv4),
        IpPreference::Ipv6 => ips.iter().position(IpAddr::is_ipv6),
        IpPreference::Cni => None,
    };
    if let Some(i) = preferred {
        ips[..=i].rotate_right(1);
    }
    ips
}

fn interfaces_of(join: &Joined, netns: &str) -> Vec<PodInterface> {
    let outcome = &join.answer.parsed;
    let ips_of =
        |index: Option<usize>| outcome.ips.iter().filter(|ip| ip.interface == index).map(pod_ip).collect::<Vec<_>>();
    let mut interfaces: Vec<PodInterface> = outcome
        .interfaces
        .iter()
        .enumerate()
        .map(|(i, interface)| PodInterface {
            network: join.network.clone(),
            name: interface.name.clone(),
            mac: interface.mac.clone(),
            mtu: interface.mtu,
            sandbox: interface.sandbox.clone(),
            ips: ips_of(Some(i)),
        })
        .collect();
    let unplaced = ips_of(None);
    match interfaces.iter_mut().find(|i| i.name == join.ifname) {
        Some(interface) => interface.ips.extend(unplaced),
        // Old plugins name no interfaces; the one that was asked for is there all the same.
        None => interfaces.push(PodInterface {
            network: join.network.clone(),
            name: join.ifname.clone(),
            mac: String::new(),
            mtu: None,
            sandbox: netns.to_owned(),
            ips: unplaced,
        }),
    }
    interfaces
}

fn pod_ip(ip: &IpConfig) -> PodIp {
    PodIp { address: ip.address, prefix: ip.prefix, gateway: ip.gateway }
}

fn loopback(netns: &str) -> PodInterface {
    PodInterface {
        network: String::new(),
        name: "lo".to_owned(),
        mac: "00:00:00:00:00:00".to_owned(),
        mtu: None,
        sandbox: netns.to_owned(),
        ips: vec![
            PodIp { address: Ipv4Addr::LOCALHOST.into(), prefix: 8, gateway: None },
            PodIp { address: Ipv6Addr::LOCALHOST.into(), prefix: 128, gateway: None },
        ],
    }
}

#[cfg(test)]
#[path = "pod/tests.rs"]
mod tests;
