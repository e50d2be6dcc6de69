//! Networks of pods: plugins that fail and hang, what is given back when, and what plugins are told.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{collections::BTreeMap, fs};

use kevel_e2e::{Client, Faults, Ledger, Node, NodeOptions, Registry, eventually, patience, until};
use kevel_proto::runtime::v1 as cri;
use serde_json::json;
use tonic::Code;

struct Setup {
    registry: Registry,
    node: Node,
    faults: Faults,
    pods: Client,
}

/// The line with the limits of a network's operations.
fn timeouts(add: u64, del: u64) -> String {
    format!("timeouts = {{ add = \"{}s\", del = \"{}s\" }}", patience(add).as_secs(), patience(del).as_secs())
}

/// `cni` are lines of the table of that name, `more` are tables.
async fn setup(cni: &str, more: &str) -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let faults = Faults::new().unwrap();
    let options = NodeOptions {
        config: more.replace("FAULTS", &faults.path("").display().to_string()),
        ..registry.node_options()
    };
    let mut node = faults.node(options, &cni.replace("FAULTS", &faults.path("").display().to_string()), "").unwrap();
    node.launch().unwrap();
    let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
    Setup { registry, node, faults, pods }
}

impl Setup {
    async fn ledger(&self) -> Ledger {
        // The bridge comes with the first pod and stays.
        let id = self.pods.run(self.pods.config("first"), "").await.unwrap();
        self.pods.stop_pod(&id).await.unwrap();
        self.pods.remove_pod(&id).await.unwrap();
        Ledger::of(&self.node, &self.faults).unwrap()
    }

    async fn unfinished(&self) -> serde_json::Value {
        let (_, info) = self.pods.node_status().await.unwrap();
        serde_json::from_str(&info["unfinished"]).unwrap()
    }

    /// What the chain was last asked to do has reached the daemon's configuration.
    async fn configured(&self, name: &str) {
        eventually("the network to be read", async || {
            self.pods.node_status().await.unwrap().1["cniconfig"].contains(name)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detach_that_fails_is_tried_again_until_nothing_is_left() {
    let setup = setup(&timeouts(4, 4), "").await;
    let before = setup.ledger().await;

    // Nobody asks again, and it is done all the same.
    let id = setup.pods.run(setup.pods.config("one"), "").await.unwrap();
    setup.faults.fail("cni-DEL").unwrap();
    let error = setup.pods.stop_pod(&id).await.unwrap_err();
    assert!(error.message().contains("DEL of network") && error.message().contains("fails on purpose"), "{error}");
    assert!(setup.unfinished().await[&id].as_str().unwrap().contains("DEL of network"));
    let failures = setup.faults.count("cni-DEL");
    until("another attempt", || (setup.faults.count("cni-DEL") > failures).then_some(())).unwrap();
    setup.faults.release("cni-DEL");
    eventually("the pod to be finished", async || setup.unfinished().await == json!({})).await;
    assert_eq!(setup.pods.list().await.unwrap()[0].state(), cri::PodSandboxState::SandboxNotready);
    setup.pods.remove_pod(&id).await.unwrap();
    before.wait(&setup.node, &setup.faults).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detach_that_fails_is_gone_on_with_by_the_next_daemon() {
    let mut setup = setup(&timeouts(4, 4), "").await;
    let before = setup.ledger().await;
    let (stopped, removed) = (
        setup.pods.run(setup.pods.config("one"), "").await.unwrap(),
        setup.pods.run(setup.pods.config("two"), "").await,
    );
    let removed = removed.unwrap();
    setup.faults.fail("cni-DEL").unwrap();
    for error in [setup.pods.stop_pod(&stopped).await, setup.pods.remove_pod(&removed).await] {
        assert!(error.unwrap_err().message().contains("DEL of network"));
    }
    // Not ready is what the kubelet acts on; what is not detached is still there to be asked about.
    let states: Vec<_> = setup.pods.list().await.unwrap().iter().map(cri::PodSandbox::state).collect();
    assert_eq!(states, [cri::PodSandboxState::SandboxNotready; 2]);

    // The network is gone on with by a daemon that nobody asked, and that fails at it, too, at first.
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    setup.pods = Client::of(&setup.node, setup.registry.reference("busybox")).await.unwrap();
    let failures = setup.faults.count("cni-DEL");
    until("another attempt", || (setup.faults.count("cni-DEL") >= failures + 2).then_some(())).unwrap();
    eventually("both to be unfinished", async || {
        let unfinished = setup.unfinished().await;
        [&stopped, &removed].iter().all(|id| unfinished[id.as_str()].to_string().contains("DEL of network"))
    })
    .await;
    setup.faults.release("cni-DEL");
    eventually("the pods to be finished", async || setup.unfinished().await == json!({})).await;
    let left: Vec<_> = setup.pods.list().await.unwrap().into_iter().map(|pod| pod.id).collect();
    assert_eq!(left, std::slice::from_ref(&stopped), "the removal is done, the stop is one");
    setup.pods.remove_pod(&stopped).await.unwrap();
    before.wait(&setup.node, &setup.faults).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_and_the_detach_after_it_that_fail_leave_nothing_in_the_end() {
    let mut setup = setup(&timeouts(4, 4), "").await;
    let before = setup.ledger().await;
    setup.faults.fail("cni-ADD").unwrap();
    setup.faults.fail("cni-DEL").unwrap();
    let config = setup.pods.config("one");
    let error = setup.pods.run(config.clone(), "").await.unwrap_err();
    assert!(error.message().contains("ADD of network") && error.message().contains("fails on purpose"), "{error}");
    // The kubelet asks again: each attempt is told of its own failure, and none piles up.
    setup.pods.run(config.clone(), "").await.unwrap_err();
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    setup.pods = Client::of(&setup.node, setup.registry.reference("busybox")).await.unwrap();
    setup.faults.release("cni-ADD");
    let id = setup.pods.run(config, "").await.unwrap();
    setup.faults.release("cni-DEL");
    eventually("the pods before it to be gone", async || {
        let ids: Vec<_> = setup.pods.list().await.unwrap().into_iter().map(|pod| pod.id).collect();
        setup.unfinished().await == json!({}) && ids == [id.clone()]
    })
    .await;
    setup.pods.remove_pod(&id).await.unwrap();
    before.wait(&setup.node, &setup.faults).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_costs_its_limit_and_its_caller_is_told_the_stage() {
    let setup = setup(&timeouts(6, 4), "").await;
    let before = setup.ledger().await;
    setup.faults.hold("cni-ADD").unwrap();
    let config = setup.pods.config("slow");
    let soon = Some(patience(2));
    let late = setup.pods.run_within(config.clone(), "", soon).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(late.message().contains("run pod sandbox slow") && late.message().contains("still attaching"), "{late}");
    // Asking again joins, and gets what the operation ends with: here the plugin's own limit.
    let limit = format!("no answer within {}s", patience(6).as_secs());
    let error = setup.pods.run(config.clone(), "").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("ADD of network") && error.message().contains(&limit), "{error}");
    assert_eq!(setup.faults.count("cni-ADD"), 2, "the first pod's and this one's, once");
    setup.faults.release("cni-ADD");
    before.wait(&setup.node, &setup.faults).unwrap();

    setup.faults.hold("cni-ADD").unwrap();
    let late = setup.pods.run_within(config.clone(), "", soon).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let again = setup.pods.run(config, "");
    setup.faults.release("cni-ADD");
    let id = again.await.unwrap();
    setup.pods.remove_pod(&id).await.unwrap();
    before.wait(&setup.node, &setup.faults).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_garbage_collection_and_check_of_version_1_1() {
    let mut setup = setup("gc_period = \"1s\"", "").await;
    setup.faults.network(&setup.node, "1.1.0", "").unwrap();
    setup.configured("1.1.0").await;
    let id = setup.pods.run(setup.pods.config("one"), "").await.unwrap();

    // STATUS decides whether the node takes pods.
    setup.faults.fail("cni-STATUS").unwrap();
    let (conditions, _) = setup.pods.node_status().await.unwrap();
    let (ready, why) = &conditions["NetworkReady"];
    assert!(!ready && why.contains("STATUS of network") && why.contains("fails on purpose"), "{why}");
    setup.faults.release("cni-STATUS");
    assert!(setup.pods.node_status().await.unwrap().0["NetworkReady"].0);

    // CHECK now and again, and when asked.
    let checks = setup.faults.count("cni-CHECK");
    until("a check", || (setup.faults.count("cni-CHECK") > checks).then_some(())).unwrap();
    let info = setup.pods.pod_status(&id, true).await.unwrap().info["info"].clone();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&info).unwrap()["networkCheck"], "ok");
    setup.faults.fail("cni-CHECK").unwrap();
    let info = setup.pods.pod_status(&id, true).await.unwrap().info["info"].clone();
    assert!(info.contains("CHECK of network"), "{info}");
    setup.faults.release("cni-CHECK");

    // An attachment of ours whose pod nobody knows goes; one of another runtime stays, and counts as valid.
    let records = setup.node.path("cni/results");
    let name = fs::read_dir(&records).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let name = name.into_iter().find(|name| name.contains(&id)).unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(records.join(&name)).unwrap()).unwrap();
    setup.node.kill().unwrap();
    for (of, owner) in [("lost", json!("kevel")), ("foreign", serde_json::Value::Null)] {
        record["containerId"] = json!(of);
        record["netns"] = json!("");
        match owner.is_null() {
            true => drop(record.as_object_mut().unwrap().remove("owner")),
            false => record["owner"] = owner,
        }
        fs::write(records.join(name.replace(&id, of)), record.to_string()).unwrap();
    }
    let collections = setup.faults.count("cni-GC");
    setup.node.launch().unwrap();
    setup.pods = Client::of(&setup.node, setup.registry.reference("busybox")).await.unwrap();
    until("a collection", || (setup.faults.count("cni-GC") > collections).then_some(())).unwrap();
    assert!(!records.join(name.replace(&id, "lost")).exists());
    assert!(records.join(name.replace(&id, "foreign")).exists() && records.join(&name).exists());
    let valid = setup.faults.request("GC").unwrap()["cni.dev/valid-attachments"].to_string();
    assert!(valid.contains(&id) && valid.contains("foreign") && !valid.contains("lost"), "{valid}");
    setup.pods.remove_pod(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_told_of_ports_and_rates_and_pods_have_addresses_of_both_families() {
    let handler = r#"[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.other]
runtime_type = "io.containerd.runc.v2"
cni_conf_dir = "FAULTS/other.d"
"#;
    let setup = setup("conf_template = \"FAULTS/template\"\nfallback = false", handler).await;
    let capabilities = r#","capabilities":{"portMappings":true,"bandwidth":true,"dns":true}"#;
    setup.faults.network(&setup.node, "1.0.0", capabilities).unwrap();
    setup.configured("portMappings").await;
    let mut config = setup.pods.config("ports");
    config.port_mappings = vec![cri::PortMapping {
        protocol: cri::Protocol::Udp as i32,
        container_port: 53,
        host_port: 5353,
        host_ip: "127.0.0.1".to_owned(),
    }];
    config.annotations =
        BTreeMap::from([("kubernetes.io/ingress-bandwidth".to_owned(), "10M".to_owned())]).into_iter().collect();
    config.dns_config = Some(cri::DnsConfig { servers: vec!["192.0.2.53".to_owned()], ..Default::default() });
    let id = setup.pods.run(config, "").await.unwrap();
    let told = setup.faults.request("ADD").unwrap();
    let port = json!({"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"});
    assert_eq!(told["runtimeConfig"]["portMappings"], json!([port]));
    assert_eq!(told["runtimeConfig"]["bandwidth"]["ingressRate"], 10_000_000);
    assert_eq!(told["runtimeConfig"]["dns"]["servers"], json!(["192.0.2.53"]));
    setup.pods.remove_pod(&id).await.unwrap();

    // A handler with networks of its own, of both families.
    let dir = setup.faults.path("other.d");
    fs::create_dir_all(&dir).unwrap();
    let list = json!({"cniVersion": "1.0.0", "name": "both", "plugins": [{
        "type": "bridge", "bridge": setup.node.bridge(), "isGateway": true,
        "ipam": {"type": "host-local", "dataDir": setup.faults.path("ipam"),
            "ranges": [[{"subnet": setup.node.subnet()}], [{"subnet": "fd00:6b65::/64"}]]},
    }, {"type": "gate"}]});
    fs::write(dir.join("10-both.conflist"), list.to_string()).unwrap();
    eventually("a pod of the other handler", async || {
        let Ok(id) = setup.pods.run(setup.pods.config("both"), "other").await else { return false };
        let network = setup.pods.pod_status(&id, false).await.unwrap().status.unwrap().network.unwrap();
        assert!(network.ip.starts_with("10."), "{network:?}");
        assert!(network.additional_ips[0].ip.starts_with("fd00:6b65::"), "{network:?}");
        assert_eq!(setup.faults.request("ADD").unwrap()["name"], "both");
        setup.pods.remove_pod(&id).await.unwrap();
        true
    })
    .await;
    let (_, info) = setup.pods.node_status().await.unwrap();
    assert_eq!(info["lastCNILoadStatus.other"], "\"OK\"");

    // The kubelet's pod CIDR makes a configuration from the operator's template.
    fs::remove_file(setup.node.path("net.d/10-e2e.conflist")).unwrap();
    eventually("the node to have no network", async || !setup.pods.node_status().await.unwrap().0["NetworkReady"].0)
        .await;
    let template =
        r#"{"cniVersion":"1.0.0","name":"from-template","plugins":[{"type":"gate","subnet":"{{.PodCIDR}}"}]}"#;
    fs::write(setup.faults.path("template"), template).unwrap();
    let network_config = Some(cri::NetworkConfig { pod_cidr: setup.node.subnet().to_owned() });
    let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) };
    setup.pods.runtime.clone().update_runtime_config(request).await.unwrap();
    let (conditions, info) = setup.pods.node_status().await.unwrap();
    assert!(conditions["NetworkReady"].0, "{conditions:?}");
    assert!(info["cniconfig"].contains(setup.node.subnet()), "{}", info["cniconfig"]);
}
