//! Network namespaces: made, entered, listed, removed.

mod harness;

use harness::{Node, block_on, run};
use kevel_cri_network::netns::{Options, Origin};
use kevel_cri_network::{Error, Netns};
use std::fs;
use std::path::Path;

#[test]
fn a_new_namespace_has_loopback_and_settings() {
    block_on(async {
        let node = Node::new();
        let settings = [("net.ipv4.ping_group_range", "0 2147483647"), ("net.ipv4.ip_unprivileged_port_start", "0")];
        let netns = node.netns_with(&settings).await;
        let name = netns.0.path().file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("cni-") && name.len() == 40, "{name}");
        assert!(netns.0.is_loopback_up().await.unwrap());
        let file = "/proc/sys/net/ipv4/ping_group_range";
        let range = netns.0.run(move || fs::read_to_string(file).unwrap()).await.unwrap();
        assert_eq!(range.trim(), "0\t2147483647");
        let links = netns.0.run(|| run("ip -o link; ip -o addr")).await.unwrap();
        assert!(links.contains("127.0.0.1/8") && !links.contains("eth0"), "{links}");
        assert_ne!(fs::read_to_string(file).unwrap(), range, "the machine's own setting was touched");
    });
}

#[test]
fn a_failure_leaves_nothing() {
    block_on(async {
        let node = Node::new();
        let create = async |key: &str, value: &str| {
            let options = Options {
                dir: node.path("netns"),
                sysctls: vec![(key.to_owned(), value.to_owned())],
                origin: Origin::New,
            };
            Netns::create(options).await.unwrap_err()
        };
        let error = create("kernel.msgmax", "1").await;
        assert_eq!(
            error.chain(),
            "invalid request: sysctls.kernel.msgmax: not a setting of the network namespace (net.*)"
        );
        assert!(matches!(create("net.ipv4.no_such_setting", "1").await, Error::Netns { .. }));
        assert_eq!(Netns::list(&node.path("netns")).unwrap(), []);
    });
}

#[test]
fn removal_is_repeatable_and_leftovers_are_listed() {
    block_on(async {
        let node = Node::new();
        let dir = node.path("netns");
        let netns = node.netns().await;
        fs::write(dir.join("cni-interrupted"), "").unwrap();
        fs::write(dir.join("somebody-elses"), "").unwrap();
        let pins = Netns::list(&dir).unwrap();
        assert_eq!(pins.iter().filter(|pin| pin.alive).count(), 1);
        assert_eq!(pins.len(), 2);
        for pin in pins {
            pin.netns.remove().await.unwrap();
            pin.netns.remove().await.unwrap();
        }
        assert_eq!(Netns::list(&dir).unwrap(), []);
        assert!(dir.join("somebody-elses").exists());
        assert!(matches!(Netns::open(netns.0.path()), Err(Error::Netns { .. })));
        assert_eq!(Netns::list(&dir.join("none")).unwrap(), []);
        assert!(Netns::at(&dir).remove().await.is_err(), "a directory is no pin");
    });
}

#[test]
fn a_foreign_namespace_can_be_pinned() {
    block_on(async {
        let node = Node::new();
        let first = node.netns().await;
        first.0.run(|| run("ip link add kvmark type bridge")).await.unwrap();
        let origin = Origin::Existing(first.0.path().to_owned());
        let options = Options { dir: node.path("netns"), sysctls: Vec::new(), origin };
        let second = harness::Pinned(Netns::create(options).await.unwrap());
        assert!(second.0.run(|| run("ip -o link")).await.unwrap().contains("kvmark"));
    });
}

#[test]
fn only_namespaces_can_be_opened() {
    let node = Node::new();
    let file = node.path("netns").join("cni-file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Netns::open(&file), Err(Error::Netns { action: "opening", .. })));
    assert!(Netns::open(Path::new("/proc/self/ns/net")).is_ok());
}
