//! The node loses power: pods that are to run do so again in sandboxes of their own, and nothing of the old ones is left.

use std::{fs, net::Ipv4Addr};

use kevel_e2e::{Cluster, until};

use crate::{container, identity, pods, ready};

/// Every process of the node ends at once, and mounts, networks and the state directory go with them.
pub(crate) fn run(cluster: &Cluster) {
    cluster.apply("reboot.yaml").unwrap();
    let before = cluster.until_pod("again-after", "to be ready", ready).unwrap();
    cluster.until_pod("not-after", "to be ready", ready).unwrap();
    cluster.reboot().unwrap();
    let after = cluster
        .until_pod("again-after", "to run again", |pod| {
            container(pod, "main")["restartCount"] == 1 && ready(pod) && identity(pod) != identity(&before)
        })
        .unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(cluster.kubectl(&["logs", "again-after"]).unwrap(), "2\n");
    assert_eq!(cluster.kubectl(&["logs", "--previous", "again-after"]).unwrap(), "1\n");
    assert_eq!(cluster.run("curl", &["-sS", "http://10.231.0.1:18081/starts"]).unwrap(), "start\nstart\n");
    cluster.until_pod("not-after", "to have failed", |pod| pod["status"]["phase"] == "Failed").unwrap();
    let again = |pod: &serde_json::Value| container(pod, "main")["restartCount"] == 1 && ready(pod);
    cluster.until_pod("static-node-1", "to run again", again).unwrap();
    // Addresses of the pods that were are free: the two that run have one each.
    until("the addresses of dead sandboxes to be free", || (addresses(cluster).len() == 2).then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", addresses(cluster)));
    cluster.kubectl(&["delete", "pod", "again-after", "not-after", "--wait"]).unwrap();
    pods::static_pod_ends(cluster);
    until("all addresses to be free", || addresses(cluster).is_empty().then_some(())).unwrap();
}

/// Addresses that host-local has given away.
fn addresses(cluster: &Cluster) -> Vec<Ipv4Addr> {
    let networks = fs::read_dir(cluster.path("ipam")).into_iter().flatten().flatten();
    let files = networks.filter_map(|network| fs::read_dir(network.path()).ok()).flatten().flatten();
    files.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect()
}
