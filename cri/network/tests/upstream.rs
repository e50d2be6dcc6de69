//! The plugins that every cluster has: bridge, host-local, portmap and loopback of the CNI project.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod harness;

use futures::future::join_all;
use harness::{Node, Pinned, pod, run};
use std::future::ready;

use kevel_cri_network::conf::{Fallback, NetworkList};
use kevel_cri_network::{
    Cni, Config, Error, ExecInvoker, IpPreference, Network, PodIp, PodNetwork, PortMapping, Protocol, SpecVersion,
};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

fn fallback(node: &Node) -> Fallback {
    Fallback {
        bridge: "kvtest0".to_owned(),
        subnets: vec!["10.199.0.0/24".to_owned(), "fd00:199::/64".to_owned()],
        data_dir: Some(node.path("ipam")),
        ..Fallback::default()
    }
}

fn bare(node: &Node) -> Config {
    Config { fallback: Some(fallback(node)), ..node.upstream() }
}

fn port(host: u16, container: u16) -> PortMapping {
    PortMapping { host_port: host, container_port: container, protocol: Protocol::Tcp, host_ip: None }
}

/// Addresses that host-local has given away.
fn reserved(node: &Node) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.path("ipam/kevel")) else { return Vec::new() };
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("last_reserved") && name != "lock").collect()
}

fn nothing_left(node: &Node) {
    assert_eq!(reserved(node), Vec::<String>::new());
    assert_eq!(node.records(), Vec::<String>::new());
    assert!(!run("ip -o link").contains("veth"), "{}", run("ip -o link"));
    let rules = run("iptables-save -t nat; ip6tables-save -t nat");
    assert!(!rules.contains("DNAT --to"), "{rules}");
    assert!(!rules.contains("10.199.0."), "{rules}");
}

async fn in_pod(pod: &Pinned, command: &'static str) -> String {
    pod.0.run(move || run(command)).await.unwrap()
}

#[test]
fn a_pod_on_a_bare_node_lives_and_leaves_nothing() {
    Node::new().on_host(async |node| {
        let subnets = vec!["10.199.0.0/24".to_owned()];
        let network = Network::new(Config { fallback: Some(Fallback { subnets, ..fallback(&node) }), ..bare(&node) });
        assert!(network.status().await.ready, "{:?}", network.status().await);
        let netns = node.netns().await;
        let mut pod = pod("sandbox-1", &netns);
        pod.port_mappings = vec![port(18080, 80), port(0, 81)];

        let status = network.attach(&pod).await.unwrap();
        assert_eq!(status.ip, "10.199.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(status.ips, [status.ip]);
        let eth0 = status.interfaces.iter().find(|i| i.name == "eth0").unwrap();
        assert_eq!(eth0.sandbox, pod.netns.to_str().unwrap());
        assert_eq!(eth0.mac.len(), 17);
        let gateway = Some("10.199.0.1".parse().unwrap());
        assert_eq!(eth0.ips, [PodIp { address: status.ip, prefix: 24, gateway }]);
        assert_eq!(status.routes.len(), 1);
        assert_eq!(status.results[0].0, "kevel");
        assert!(in_pod(&netns, "ip -o addr").await.contains("10.199.0.2/24"));
        assert!(in_pod(&netns, "ip -o link show lo").await.contains("LOOPBACK,UP"));
        let rules = run("iptables-save -t nat");
        assert!(rules.contains("--dport 18080") && rules.contains("--to-destination 10.199.0.2:80"), "{rules}");
        assert!(!rules.contains(":81"), "{rules}");
        assert_eq!(node.records(), ["kevel-sandbox-1-eth0"]);

        network.detach(&pod).await.unwrap();
        assert!(!in_pod(&netns, "ip -o link").await.contains("eth0"));
        nothing_left(&node);
        network.detach(&pod).await.unwrap();
    });
}

/// Without host ports: portmap 1.1 looks for the rules of IPv4 in the tables of IPv6 too, and fails.
#[test]
fn a_check_notices_a_lost_route() {
    Node::new().on_host(async |node| {
        let network = Network::new(bare(&node));
        let netns = node.netns().await;
        let pod = pod("sandbox-1", &netns);
        assert!(matches!(network.check(&pod).await, Err(Error::NotAttached { .. })));
        network.attach(&pod).await.unwrap();
        network.check(&pod).await.unwrap();
        in_pod(&netns, "ip route del default").await;
        let broken = network.check(&pod).await.unwrap_err();
        assert!(matches!(&broken, Error::Plugin { plugin, .. } if plugin == "bridge"), "{}", broken.chain());
        network.detach(&pod).await.unwrap();
        assert!(matches!(network.check(&pod).await, Err(Error::NotAttached { .. })));
        nothing_left(&node);
    });
}

#[test]
fn the_order_of_addresses_follows_the_preference() {
    Node::new().on_host(async |node| {
        for (ip_pref, want) in
            [(IpPreference::Ipv6, "fd00:199::"), (IpPreference::Ipv4, "10.199.0."), (IpPreference::Cni, "10.199.0.")]
        {
            let network = Network::new(Config { ip_pref, ..bare(&node) });
            let netns = node.netns().await;
            let status = network.attach(&pod("sandbox-1", &netns)).await.unwrap();
            assert!(status.ip.to_string().starts_with(want), "{ip_pref:?}: {:?}", status.ips);
            assert_eq!((status.ips.len(), status.ips[0]), (2, status.ip));
            network.detach(&pod("sandbox-1", &netns)).await.unwrap();
        }
        nothing_left(&node);
    });
}

#[test]
fn detaching_works_after_the_namespace_is_gone() {
    Node::new().on_host(async |node| {
        let network = Network::new(bare(&node));
        let netns = node.netns().await;
        let mut pod = pod("sandbox-1", &netns);
        pod.port_mappings = vec![port(18080, 80)];
        network.attach(&pod).await.unwrap();
        netns.0.remove().await.unwrap();
        network.detach(&pod).await.unwrap();
        assert_eq!(reserved(&node), Vec::<String>::new());
        assert_eq!(node.records(), Vec::<String>::new());
        let rules = run("iptables-save -t nat");
        assert!(!rules.contains("18080"), "{rules}");
    });
}

#[test]
fn a_record_without_a_result_is_undone() {
    Node::new().on_host(async |node| {
        let network = Network::new(bare(&node));
        let netns = node.netns().await;
        let pod = pod("sandbox-1", &netns);
        network.attach(&pod).await.unwrap();
        // The daemon dies after the plugins are done and before it learns of it.
        let path = node.path("cache/results/kevel-sandbox-1-eth0");
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record.as_object_mut().unwrap().remove("result").unwrap();
        fs::write(&path, record.to_string()).unwrap();
        drop(network);

        let network = Network::new(bare(&node));
        let again = network.attach(&pod).await.unwrap();
        assert_eq!(again.ips.len(), 2);
        assert_eq!(reserved(&node).len(), 2, "the first two addresses must have been released");
        network.detach(&pod).await.unwrap();
        nothing_left(&node);
    });
}

#[test]
fn a_lost_record_does_not_leak_the_address() {
    Node::new().on_host(async |node| {
        let network = Network::new(bare(&node));
        let netns = node.netns().await;
        let pod = pod("sandbox-1", &netns);
        network.attach(&pod).await.unwrap();
        fs::remove_file(node.path("cache/results/kevel-sandbox-1-eth0")).unwrap();
        network.detach(&pod).await.unwrap();
        nothing_left(&node);
    });
}

#[test]
fn garbage_collection_removes_pods_that_nobody_knows() {
    Node::new().on_host(async |node| {
        let network = Network::new(bare(&node));
        let (one, two) = (node.netns().await, node.netns().await);
        network.attach(&pod("sandbox-1", &one)).await.unwrap();
        network.attach(&pod("sandbox-2", &two)).await.unwrap();
        network.gc(ready(Some(vec!["sandbox-2".to_owned()]))).await.unwrap();
        assert_eq!(node.records(), ["kevel-sandbox-2-eth0"]);
        assert_eq!(reserved(&node).len(), 2);
        network.check(&pod("sandbox-2", &two)).await.unwrap();
        network.gc(ready(Some(vec![]))).await.unwrap();
        nothing_left(&node);
    });
}

#[test]
fn many_pods_at_once() {
    Node::new().on_host(async |node| {
        let network = Network::new(bare(&node));
        let mut pins = Vec::new();
        for _ in 0..8 {
            pins.push(node.netns().await);
        }
        let pods: Vec<PodNetwork> = pins.iter().enumerate().map(|(i, pin)| pod(&format!("sandbox-{i}"), pin)).collect();
        let mut ips = BTreeSet::new();
        for attached in join_all(pods.iter().map(|pod| network.attach(pod))).await {
            assert!(ips.insert(attached.unwrap().ip), "an address was given twice");
        }
        let collecting = network.gc(ready(Some(vec![])));
        let detaching = join_all(pods.iter().map(|pod| network.detach(pod)));
        let (collected, detached) = futures::join!(collecting, detaching);
        collected.unwrap();
        detached.into_iter().collect::<Result<Vec<()>, _>>().unwrap();
        nothing_left(&node);
    });
}

#[test]
fn two_networks_and_the_loopback_plugin() {
    Node::new().on_host(async |node| {
        let network = |name: &str, n: u8| {
            format!(
                r#"{{"cniVersion":"0.4.0","name":"{name}","type":"bridge","bridge":"kvt{n}","ipam":{{
                "type":"host-local","subnet":"10.199.{n}.0/24","dataDir":"{}"}}}}"#,
                node.path("ipam").display()
            )
        };
        node.conf("10-a.conf", &network("first", 1));
        node.conf("20-b.conf", &network("second", 2));
        for setup_serially in [true, false] {
            let config = Config { max_conf_num: 0, use_internal_loopback: false, setup_serially, ..node.upstream() };
            let networks = Network::new(config);
            let netns = node.netns().await;
            let status = networks.attach(&pod("sandbox-1", &netns)).await.unwrap();
            assert_eq!(status.ips.len(), 1, "addresses of the second network are not the pod's own");
            assert!(status.interfaces.iter().any(|i| i.name == "eth1" && i.network == "second"));
            let want = ["cni-loopback-sandbox-1-lo", "first-sandbox-1-eth0", "second-sandbox-1-eth1"];
            assert_eq!(node.records(), want);
            networks.check(&pod("sandbox-1", &netns)).await.unwrap();
            networks.detach(&pod("sandbox-1", &netns)).await.unwrap();
            nothing_left(&node);
        }
    });
}

#[test]
fn versions_of_upstream_plugins() {
    Node::new().on_host(async |node| {
        let config = node.upstream();
        let dirs: Vec<PathBuf> = config.bin_dirs.clone();
        let cni = Cni::new(Arc::new(ExecInvoker::new(dirs)), &config.cache_dir, config.timeouts);
        assert!(cni.version("bridge").await.unwrap().contains(&SpecVersion::V1_0_0));
        assert!(cni.version("no-such-plugin").await.is_err());
        let list = |version: &str| {
            let text = format!(r#"{{"cniVersion":"{version}","name":"n","plugins":[{{"type":"bridge"}}]}}"#);
            NetworkList::parse(text.as_bytes()).unwrap()
        };
        cni.validate(&list("0.3.1")).await.unwrap();
    });
}
