//! STATUS and GC of 1.1, the order of operations, the configuration directory, and the format of records.

mod harness;

use harness::{Node, block_on, pod};
use std::future::ready;

use kevel_cri_network::{Cni, Config, ExecInvoker, Network, Origin};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

const RESULT: &str = r#"{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24"}]}"#;

fn network(node: &Node, fields: &str) {
    let text = format!(r#"{{"cniVersion":"1.1.0","name":"n"{fields},"plugins":[{{"type":"one"}},{{"type":"two"}}]}}"#);
    node.conf("10-n.conflist", &text);
    for plugin in ["one", "two"] {
        node.script(plugin, &format!(r#"echo "{plugin} $CNI_COMMAND $CNI_CONTAINERID" >>$LOG; echo '{RESULT}'"#));
    }
}

#[test]
fn status_asks_the_plugins() {
    block_on(async {
        let node = Node::new();
        network(&node, "");
        let network = Network::new(node.config());
        let status = network.status().await;
        assert!(status.ready, "{}", status.reason);
        assert_eq!(status.load.networks, [("n".to_owned(), Origin::File(node.path("conf/10-n.conflist")))]);
        assert_eq!(node.log(), "one STATUS \ntwo STATUS \n");

        node.script("two", r#"echo '{"code":50,"msg":"no agent"}'; exit 1"#);
        let reason = "STATUS of network n by plugin two: error 50: no agent";
        assert_eq!(network.status().await.reason, reason);
        // A plugin from before 1.1 does not know the verb, which says nothing about the network.
        node.script("two", r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: STATUS"}'; exit 1"#);
        assert!(network.status().await.ready);
    });
}

#[test]
fn a_plugin_that_is_older_than_its_configuration_is_found_out() {
    block_on(async {
        let node = Node::new();
        network(&node, "");
        let config = node.config();
        let invoker = Arc::new(ExecInvoker::new(config.bin_dirs.clone()));
        let cni = Cni::new(invoker, &config.cache_dir, config.timeouts);
        let list = Network::new(config).networks().remove(0);
        let all = r#"echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0","7.0.0"]}'"#;
        node.script("one", all);
        node.script("two", all);
        cni.validate(&list).await.unwrap();
        node.script("two", r#"echo '{"supportedVersions":["0.4.0","1.0.0"]}'"#);
        let error = cni.validate(&list).await.unwrap_err();
        let want = "VERSION of network n by plugin two: version 1.1.0 is not among [0.4.0, 1.0.0]";
        assert_eq!(error.chain(), want);
        node.script("two", r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"#);
        let error = cni.validate(&list).await.unwrap_err();
        assert!(error.chain().ends_with("version 1.1.0 is not among [0.1.0]"), "{}", error.chain());
    });
}

#[test]
fn the_configuration_is_described_as_crictl_shows_it() {
    let node = Node::new();
    node.conf("10-n.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"one","ipam":{"type":"two","x":1}}"#);
    let described = Network::new(node.config()).describe();
    assert_eq!((&described["Prefix"], &described["PluginMaxConfNum"]), (&json!("eth"), &json!(1)));
    let network = &described["Networks"][0];
    assert_eq!((&network["IFName"], &network["Config"]["Name"]), (&json!("eth0"), &json!("n")));
    let plugin = &network["Config"]["Plugins"][0];
    assert_eq!(plugin["Network"], json!({"type": "one", "ipam": {"type": "two"}, "dns": {}}));
    let source: Value = serde_json::from_str(plugin["Source"].as_str().unwrap()).unwrap();
    assert_eq!(source["ipam"]["x"], json!(1));
}

#[test]
fn without_a_network_nothing_is_ready() {
    block_on(async {
        let node = Node::new();
        let network = Network::new(node.config());
        let netns = node.netns().await;
        let why = format!("no network configuration in {}", node.path("conf").display());
        assert_eq!(network.status().await.reason, why);
        let error = network.attach(&pod("s1", &netns)).await.unwrap_err();
        assert_eq!(error.chain(), format!("network not ready: {why}"));
        network.detach(&pod("s1", &netns)).await.unwrap();
        node.conf("10-broken.conflist", "{");
        network.reload();
        let status = network.status().await;
        assert!(status.reason.contains("10-broken.conflist: not JSON"), "{}", status.reason);
        assert_eq!(status.load.errors.len(), 1);
    });
}

#[test]
fn garbage_collection_tells_the_plugins_what_is_valid() {
    block_on(async {
        let node = Node::new();
        network(&node, "");
        let network = Network::new(node.config());
        let (one, two) = (node.netns().await, node.netns().await);
        network.attach(&pod("s1", &one)).await.unwrap();
        network.attach(&pod("s2", &two)).await.unwrap();
        fs::remove_file(node.path("log")).unwrap();
        node.script("one", r#"echo "one $CNI_COMMAND $CNI_CONTAINERID" >>$LOG; cat >>$LOG; echo >>$LOG"#);
        node.script("two", r#"echo "two $CNI_COMMAND" >>$LOG; [ $CNI_COMMAND = GC ] && echo '{"code":100,"msg":"x"}' && exit 1; exit 0"#);
        // A pod without a record is valid too.
        let error = network.gc(ready(Some(vec!["s2".to_owned(), "s3".to_owned()]))).await.unwrap_err();
        assert_eq!(error.chain(), "GC of network n by plugin two: error 100: x");
        let log = node.log();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("two DEL", "one DEL s1", "one GC "));
        let request: Value = serde_json::from_str(lines[4]).unwrap();
        let valid = json!([{"containerID": "s2", "ifname": "eth0"}, {"containerID": "s3", "ifname": "eth0"}]);
        assert_eq!(request["cni.dev/valid-attachments"], valid);
        assert_eq!(request["cni.dev/attachments"], valid);
        assert_eq!(node.records(), ["n-s2-eth0"]);
    });
}

#[test]
fn verbs_that_the_configuration_disables_are_not_called() {
    block_on(async {
        let node = Node::new();
        network(&node, r#","disableCheck":true,"disableGC":"true""#);
        let network = Network::new(node.config());
        let netns = node.netns().await;
        network.attach(&pod("s1", &netns)).await.unwrap();
        fs::remove_file(node.path("log")).unwrap();
        network.check(&pod("s1", &netns)).await.unwrap();
        network.gc(ready(Some(vec![]))).await.unwrap();
        assert_eq!(node.log(), "");
        assert_eq!(node.records(), ["n-s1-eth0"]);
    });
}

#[test]
fn operations_of_one_pod_wait_for_each_other() {
    block_on(async {
        let node = Node::new();
        network(&node, "");
        node.script("two", &format!("echo begin >>$LOG; sleep 0.1; echo end >>$LOG; echo '{RESULT}'"));
        node.script("one", &format!("echo '{RESULT}'"));
        let network = Network::new(node.config());
        let netns = node.netns().await;
        let pod = pod("s1", &netns);
        let (attached, detached, collected) =
            tokio::join!(network.attach(&pod), network.detach(&pod), network.gc(ready(Some(vec![]))));
        attached.unwrap();
        detached.unwrap();
        collected.unwrap();
        let log = node.log();
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines.chunks(2).all(|pair| pair == ["begin", "end"]), "{log}");
    });
}

#[test]
fn the_directory_is_watched() {
    block_on(async {
        let node = Node::new();
        fs::remove_dir(node.path("conf")).unwrap();
        let network = Arc::new(Network::new(node.config()));
        let watching = tokio::spawn({
            let network = network.clone();
            async move { network.watch().await }
        });
        let names = || network.networks().iter().map(|n| (n.name.clone(), n.plugins.len())).collect::<Vec<_>>();
        let wait = async |want: &[(&str, usize)]| {
            let want: Vec<_> = want.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
            let reached = async {
                while names() != want {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("{:?}", names()));
        };
        let conf = node.path("conf");
        while !conf.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let list = |name: &str| format!(r#"{{"name":"{name}","plugins":[{{"type":"one"}}]}}"#);
        node.conf("20-b.conflist", &list("b"));
        wait(&[("b", 1)]).await;
        node.conf("10-a.conflist", &list("a"));
        wait(&[("a", 1)]).await;
        fs::create_dir(conf.join("a")).unwrap();
        node.conf("a/more.conf", r#"{"type":"two"}"#);
        wait(&[("a", 2)]).await;
        node.conf("a/most.conf", r#"{"type":"two"}"#);
        wait(&[("a", 3)]).await;
        fs::rename(conf.join("10-a.conflist"), conf.join("10-a.off")).unwrap();
        wait(&[("b", 1)]).await;
        fs::remove_dir_all(&conf).unwrap();
        wait(&[]).await;
        while !conf.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.conf("30-c.conflist", &list("c"));
        wait(&[("c", 1)]).await;
        watching.abort();
    });
}

#[test]
fn records_are_in_the_format_of_libcni() {
    block_on(async {
        let node = Node::new();
        node.conf("10-n.conf", r#"{"cniVersion":"0.4.0","name":"n","type":"one","capabilities":{"mac":true}}"#);
        let result = r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.5/24"}]}"#;
        node.script("one", &format!("echo '{result}'"));
        let network = Network::new(node.config());
        let netns = node.netns().await;
        let mut pod = pod("s1", &netns);
        pod.capability_args.insert("mac".to_owned(), json!("02:00:00:00:00:01"));
        network.attach(&pod).await.unwrap();
        let path = node.path("cache/results/n-s1-eth0");
        let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let want = json!({
            "kind": "cniCacheV1",
            "containerId": "s1",
            "config": "eyJuYW1lIjoibiIsImNuaVZlcnNpb24iOiIwLjQuMCIsInBsdWdpbnMiOlt7ImNuaVZlcnNpb24iOiIwLjQuMCIsIm5hbWUiOiJuIiwidHlwZSI6Im9uZSIsImNhcGFiaWxpdGllcyI6eyJtYWMiOnRydWV9fV19",
            "ifName": "eth0",
            "networkName": "n",
            "netns": pod.netns,
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"],
                ["K8S_POD_INFRA_CONTAINER_ID", "s1"], ["K8S_POD_UID", "uid-1"]],
            "capabilityArgs": {"mac": "02:00:00:00:00:01"},
            "result": serde_json::from_str::<Value>(result).unwrap(),
            "owner": "kevel",
        });
        assert_eq!(record, want);

        // A record of another runtime, with a configuration of a single plugin, is detached as well; with a network
        // that is no longer configured, too.
        let mut foreign = want.clone();
        foreign["config"] = json!("eyJjbmlWZXJzaW9uIjoiMC40LjAiLCJuYW1lIjoib2xkIiwidHlwZSI6Im9uZSJ9");
        foreign["networkName"] = json!("old");
        fs::write(node.path("cache/results/old-s1-eth0"), foreign.to_string()).unwrap();
        fs::write(node.path("cache/results/damaged-s1-eth0"), "{").unwrap();
        network.detach(&pod).await.unwrap();
        assert_eq!(node.records(), ["damaged-s1-eth0"]);
    });
}

#[test]
fn a_damaged_record_does_not_keep_a_pod_attached() {
    block_on(async {
        let node = Node::new();
        network(&node, "");
        let network = Network::new(Config { max_conf_num: 0, ..node.config() });
        let netns = node.netns().await;
        network.attach(&pod("s1", &netns)).await.unwrap();
        for damage in ["", "{}", r#"{"kind":"other"}"#] {
            fs::write(node.path("cache/results/n-s1-eth0"), damage).unwrap();
            fs::remove_file(node.path("log")).unwrap();
            network.detach(&pod("s1", &netns)).await.unwrap();
            assert_eq!(node.log(), "two DEL s1\none DEL s1\n");
            assert_eq!(node.records(), Vec::<String>::new());
        }
    });
}
