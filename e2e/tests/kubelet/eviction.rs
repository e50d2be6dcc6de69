//! A disk that fills up, under kubelet: it takes unused images off the node and looks again at once, and only when that does
//! not help it evicts the pod that fills the disk.

use std::fs;

use kevel_e2e::{Cluster, ClusterOptions, Leaks, find, until};
use serde_json::Value;

use crate::{Identity, identity, ready, soak};

/// Of the disk's 300 MiB three bulk images take more than four fifths. kubelet says which images it has come to know.
const EVICTION: &str = r#"
evictionHard: {imagefs.available: "20%"}
evictionPressureTransitionPeriod: 1s
imageMinimumGCAge: 1ms
logging: {vmodule: [{filePattern: image_gc_manager, verbosity: 5}]}
"#;

/// Two of the images take more than image GC likes.
const COLLECTION: &str = r#"
evictionHard: {imagefs.available: "1%"}
imageGCHighThresholdPercent: 30
imageGCLowThresholdPercent: 10
"#;

/// A cluster whose node has a disk of its own with a pod on it that stays, and two of the bulk images; and who that pod is.
fn filling(kubelet: &str, images: &str) -> (Cluster, Identity) {
    let arguments = ["--disk", "300", "--images", images];
    let cluster =
        Cluster::start(ClusterOptions { kubelet, arguments: &arguments, ..ClusterOptions::default() }).unwrap();
    cluster.apply("keeper.yaml").unwrap();
    let keeper = identity(&cluster.until_pod("keeper", "to be ready", ready).unwrap());
    leave(&cluster, "bulk-1");
    leave(&cluster, "bulk-2");
    (cluster, keeper)
}

#[test]
fn unused_images_make_room_before_pods_do() {
    if !soak() {
        eprintln!("SKIPPED: fills a disk of its own for minutes; hack/test soak runs this");
        return;
    }
    let (cluster, keeper) = filling(EVICTION, "bulk-1,bulk-2,bulk-3");
    let mark = cluster.mark();
    assert_eq!(bulk(&cluster), ["bulk-1", "bulk-2"]);
    meet_images(&cluster);

    // The threshold of evictions is crossed: images go, and the room that they leave is seen before a pod is chosen.
    leave(&cluster, "bulk-3");
    until("images to make room", || (bulk(&cluster).len() < 3).then_some(())).unwrap();
    until_pressure(&cluster, "False");
    let told = cluster.events("node-1").unwrap();
    assert!(told.iter().any(|event| event.starts_with("EvictionThresholdMet: ")), "{told:?}");
    assert!(evicted(&cluster).is_empty(), "{:?}", evicted(&cluster));

    // Now it is a pod's own doing.
    cluster.apply("greedy.yaml").unwrap();
    let greedy = cluster.until_pod("greedy", "to be evicted", |pod| pod["status"]["phase"] == "Failed").unwrap();
    assert_eq!(greedy["status"]["reason"], "Evicted");
    let why = greedy["status"]["message"].as_str().unwrap();
    assert!(why.starts_with("The node was low on resource: ephemeral-storage."), "{why}");
    until_pressure(&cluster, "False");
    assert_eq!(evicted(&cluster), ["greedy"]);
    assert_eq!(identity(&cluster.until_pod("keeper", "to be there", ready).unwrap()), keeper);
    assert!(cluster.events("node-1").unwrap().iter().any(|event| event.starts_with("NodeHasDiskPressure: ")));
    drop(cluster);
    assert!(Leaks::of(&mark).is_empty(), "{:#?}", Leaks::of(&mark));
}

/// kubelet removes no image that it has not seen at an earlier look, and it looks when it starts, every five minutes, and when
/// it wants to remove some: that look would find nothing to remove.
fn meet_images(cluster: &Cluster) {
    let met = || fs::read_to_string(cluster.path("log/kubelet.log")).unwrap().matches("\"Image ID is new\"").count();
    let (before, all) = (met(), images(cluster).len());
    cluster.again("restart", "kubelet").unwrap();
    until("kubelet to look at images", || (met() >= before + all).then_some(())).unwrap();
}

/// Image GC by its own threshold, which kubelet looks at every five minutes: it removes what it had seen at the look before,
/// the one after its start.
#[test]
fn images_beyond_the_threshold_are_collected() {
    if !soak() {
        eprintln!("SKIPPED: takes five minutes; hack/test soak runs this");
        return;
    }
    let (cluster, keeper) = filling(COLLECTION, "bulk-1,bulk-2");
    let mark = cluster.mark();
    cluster.again("restart", "kubelet").unwrap();
    let gone = || until("image GC", || bulk(&cluster).is_empty().then_some(()));
    (0..6).find(|_| gone().is_ok()).unwrap_or_else(|| panic!("kubelet leaves {:?}", bulk(&cluster)));
    assert_eq!(images(&cluster).len(), 2, "{:?}", images(&cluster));
    assert!(evicted(&cluster).is_empty(), "{:?}", evicted(&cluster));
    assert_eq!(identity(&cluster.until_pod("keeper", "to be there", ready).unwrap()), keeper);
    drop(cluster);
    assert!(Leaks::of(&mark).is_empty(), "{:#?}", Leaks::of(&mark));
}

/// Has a pod of an image come and go.
fn leave(cluster: &Cluster, image: &str) {
    let file = cluster.path("fill.yaml");
    let text = cluster.manifest("fill.yaml").unwrap();
    fs::write(&file, text.replace("BULK", cluster.image(image)).replace("fill", image)).unwrap();
    cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
    cluster.until_pod(image, "to succeed", |pod| pod["status"]["phase"] == "Succeeded").unwrap();
    cluster.kubectl(&["delete", "pod", image, "--wait"]).unwrap();
}

/// The images of the node, by name.
fn images(cluster: &Cluster) -> Vec<String> {
    let socket = cluster.path("run/kevel.sock").display().to_string();
    let ctr = find("ctr").unwrap().display().to_string();
    let said = cluster.run(&ctr, &["-a", &socket, "-n", "k8s.io", "images", "ls", "-q"]).unwrap();
    let names = said.lines().filter(|line| line.ends_with(":v1"));
    names.filter_map(|line| Some(line.rsplit('/').next()?.trim_end_matches(":v1").to_owned())).collect()
}

fn bulk(cluster: &Cluster) -> Vec<String> {
    images(cluster).into_iter().filter(|name| name.starts_with("bulk")).collect()
}

/// Pods that kubelet has evicted.
fn evicted(cluster: &Cluster) -> Vec<String> {
    let pods: Value = serde_json::from_str(&cluster.kubectl(&["get", "pods", "-o", "json"]).unwrap()).unwrap();
    let pods = pods["items"].as_array().unwrap().iter();
    let evicted = pods.filter(|pod| pod["status"]["reason"] == "Evicted");
    evicted.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn until_pressure(cluster: &Cluster, wanted: &str) {
    let condition = || {
        let path = r#"jsonpath={.status.conditions[?(@.type=="DiskPressure")].status}"#;
        cluster.kubectl(&["get", "node", "node-1", "-o", path])
    };
    until(&format!("DiskPressure to be {wanted}"), || (condition().ok()? == wanted).then_some(())).unwrap();
}
