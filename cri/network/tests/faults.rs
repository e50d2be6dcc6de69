//! Plugins that fail in every way a program can, and what is left afterwards: nothing.

mod harness;

use harness::{Node, Pinned, block_on, pod};
use kevel_cri_network::{Config, Error, Kind, Network, PodNetwork, PortMapping, Protocol};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const RESULT: &str = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5/24"}]}"#;

/// A network of the plugins `first` and `second`; `first` works.
fn two_plugins(node: &Node, version: &str) {
    node.conf(
        "10-n.conflist",
        &format!(r#"{{"cniVersion":"{version}","name":"n","plugins":[{{"type":"first"}},{{"type":"second"}}]}}"#),
    );
    node.script("first", &format!(r#"cat >/dev/null; echo "first $CNI_COMMAND" >>$LOG; echo '{RESULT}'"#));
}

fn log_second(body: &str) -> String {
    format!(r#"echo "second $CNI_COMMAND" >>$LOG; [ $CNI_COMMAND = DEL ] && exit 0; {body}"#)
}

async fn attach(node: &Node, config: Config) -> (Network, Pinned, PodNetwork, Result<(), Error>) {
    let network = Network::new(config);
    let netns = node.netns().await;
    let pod = pod("s1", &netns);
    let attached = network.attach(&pod).await.map(|_| ());
    (network, netns, pod, attached)
}

#[test]
fn a_failing_add_says_why_and_is_undone() {
    let huge = "yes | head -c 2000000";
    for (body, want, kind) in [
        (
            r#"echo '{"cniVersion":"1.0.0","code":7,"msg":"bad subnet","details":"too small"}'; exit 1"#,
            "error 7: bad subnet: too small",
            Kind::Internal,
        ),
        (r#"echo '{"code":11,"msg":"later"}'; exit 1"#, "error 11: later", Kind::Unavailable),
        ("exit 3", r#"exit status: 3 without an error object, stdout "", stderr """#, Kind::Internal),
        (
            "echo 'no route' >&2; exit 1",
            r#"exit status: 1 without an error object, stdout "", stderr "no route""#,
            Kind::Internal,
        ),
        ("echo panic; exit 2", r#"exit status: 2 without an error object, stdout "panic", stderr """#, Kind::Internal),
        ("kill -9 $$", r#"signal: 9 (SIGKILL) without an error object, stdout "", stderr """#, Kind::Internal),
        ("exit 0", "answer is not a valid result: empty answer", Kind::Internal),
        (
            "echo hello",
            r#"answer is not a valid result: not JSON: "hello\n": expected value at line 1 column 1"#,
            Kind::Internal,
        ),
        (
            r#"echo '{"ips":[{"address":"10.0.0.999/24"}]}'"#,
            r#"answer is not a valid result: invalid field: ips[0].address: "10.0.0.999/24" is not an address with a prefix length"#,
            Kind::Internal,
        ),
        (huge, "more than 1048576 bytes of output, killed", Kind::Internal),
    ] {
        block_on(async {
            let node = Node::new();
            two_plugins(&node, "1.0.0");
            node.script("second", &log_second(body));
            let (_, _netns, _, attached) = attach(&node, node.config()).await;
            let error = attached.unwrap_err();
            assert_eq!(error.chain(), format!("ADD of network n by plugin second: {want}"));
            assert_eq!(error.kind(), kind, "{want}");
            assert_eq!(node.log(), "first ADD\nsecond ADD\nsecond DEL\nfirst DEL\n", "{want}");
            assert_eq!(node.records(), Vec::<String>::new());
        });
    }
}

#[test]
fn a_hanging_plugin_is_killed_with_its_children() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        let marker = node.path("child");
        node.script("second", &log_second(&format!("sleep 600 & echo $! >{}; wait", marker.display())));
        let mut config = node.config();
        config.timeouts.add = Duration::from_secs(5);
        let started = Instant::now();
        let (_, _netns, _, attached) = attach(&node, config).await;
        let error = attached.unwrap_err();
        assert_eq!(error.chain(), "ADD of network n by plugin second: no answer within 5s, killed");
        assert_eq!(error.kind(), Kind::DeadlineExceeded);
        assert!(started.elapsed() < Duration::from_secs(300));
        let child = fs::read_to_string(marker).unwrap();
        wait_for_death(child.trim());
        assert_eq!(node.records(), Vec::<String>::new());
    });
}

#[test]
fn dropping_an_operation_kills_the_plugin_and_leaves_a_record() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        let marker = node.path("child");
        node.script("second", &log_second(&format!("echo $$ >{}; exec sleep 600", marker.display())));
        let network = Network::new(node.config());
        let netns = node.netns().await;
        let pod = pod("s1", &netns);
        let started = async {
            while fs::read_to_string(&marker).unwrap_or_default().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = network.attach(&pod) => panic!("the plugin hangs"),
            () = started => {}
        }
        wait_for_death(fs::read_to_string(&marker).unwrap().trim());
        assert_eq!(node.records(), ["n-s1-eth0"]);
        network.detach(&pod).await.unwrap();
        assert_eq!(node.records(), Vec::<String>::new());
        assert!(node.log().ends_with("second DEL\nfirst DEL\n"), "{}", node.log());
    });
}

/// Killed is not gone: the process may be a zombie for a moment.
fn wait_for_death(pid: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let lives = || {
        let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while lives() {
        assert!(Instant::now() < deadline, "process {pid} lives");
        std::thread::yield_now();
    }
}

#[test]
fn del_goes_on_past_failures_and_keeps_the_record() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        node.script(
            "second",
            &format!(
                r#"echo "second $CNI_COMMAND" >>$LOG; [ $CNI_COMMAND = ADD ] && echo '{RESULT}' && exit 0
            [ -e {} ] && exit 0; echo '{{"code":100,"msg":"busy"}}'; exit 1"#,
                node.path("free").display()
            ),
        );
        let (network, _netns, pod, attached) = attach(&node, node.config()).await;
        attached.unwrap();
        for _ in 0..2 {
            let error = network.detach(&pod).await.unwrap_err();
            assert_eq!(error.chain(), "DEL of network n by plugin second: error 100: busy");
            assert_eq!(node.records(), ["n-s1-eth0"]);
        }
        assert_eq!(node.log().matches("first DEL").count(), 2);
        fs::write(node.path("free"), "").unwrap();
        network.detach(&pod).await.unwrap();
        assert_eq!(node.records(), Vec::<String>::new());
    });
}

#[test]
fn a_failed_undo_is_told_and_can_be_repeated() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        node.script("second", r#"echo "{\"code\":100,\"msg\":\"no $CNI_COMMAND\"}"; exit 1"#);
        let (network, _netns, pod, attached) = attach(&node, node.config()).await;
        let error = attached.unwrap_err();
        assert_eq!(
            error.chain(),
            "ADD of network n by plugin second: error 100: no ADD; \
             undoing it failed too: DEL of network n by plugin second: error 100: no DEL"
        );
        assert_eq!(node.records(), ["n-s1-eth0"]);
        node.script("second", "exit 0");
        network.detach(&pod).await.unwrap();
        assert_eq!(node.records(), Vec::<String>::new());
    });
}

#[test]
fn both_failures_of_a_del_are_returned_and_an_unknown_container_is_none() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        node.script("second", &format!("echo '{RESULT}'"));
        let (network, _netns, pod, attached) = attach(&node, node.config()).await;
        attached.unwrap();
        node.script("first", r#"echo '{"code":100,"msg":"one"}'; exit 1"#);
        node.script("second", r#"echo '{"code":101,"msg":"two"}'; exit 1"#);
        assert_eq!(
            network.detach(&pod).await.unwrap_err().chain(),
            "DEL of network n by plugin second: error 101: two; DEL of network n by plugin first: error 100: one"
        );
        node.script("first", r#"echo '{"code":3,"msg":"unknown container"}'; exit 1"#);
        node.script("second", "exit 0");
        network.detach(&pod).await.unwrap();
        assert_eq!(node.records(), Vec::<String>::new());
    });
}

#[test]
fn a_missing_plugin_changes_nothing() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        let (network, _netns, pod, attached) = attach(&node, node.config()).await;
        let error = attached.unwrap_err();
        let bin = node.path("bin");
        let missing = format!("of network n by plugin second: no executable \"second\" in {}", bin.display());
        assert_eq!(error.chain(), format!("ADD {missing}"));
        assert_eq!((node.log().as_str(), node.records().len()), ("", 0));
        assert_eq!(network.status().await.reason, format!("STATUS {missing}"));
        network.detach(&pod).await.unwrap();
    });
}

#[test]
fn a_pod_joins_all_networks_or_none() {
    for setup_serially in [true, false] {
        block_on(async {
            let node = Node::new();
            node.conf("10-a.conf", r#"{"cniVersion":"1.0.0","name":"a","type":"good"}"#);
            node.conf("20-b.conf", r#"{"cniVersion":"1.0.0","name":"b","type":"bad"}"#);
            node.script("good", &format!(r#"echo "good $CNI_COMMAND $CNI_IFNAME" >>$LOG; echo '{RESULT}'"#));
            node.script("bad", "[ $CNI_COMMAND = DEL ] && exit 0; exit 1");
            let config = Config { max_conf_num: 0, setup_serially, ..node.config() };
            let (_, _netns, _, attached) = attach(&node, config).await;
            let error = attached.unwrap_err().chain();
            assert!(error.starts_with("ADD of network b by plugin bad: exit status: 1"), "{error}");
            assert_eq!(node.log(), "good ADD eth0\ngood DEL eth0\n");
            assert_eq!(node.records(), Vec::<String>::new());
        });
    }
}

#[test]
fn bad_requests_change_nothing() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        node.script("second", &log_second("exit 1"));
        let network = Network::new(node.config());
        let netns = node.netns().await;
        let good = pod("s1", &netns);
        let plain_file = node.path("netns/file");
        fs::write(&plain_file, "").unwrap();
        let port = PortMapping { host_port: 80, container_port: 80, protocol: Protocol::Tcp, host_ip: None };
        for (bad, want) in [
            (PodNetwork { id: "../s1".into(), ..good.clone() }, "invalid request: id: "),
            (PodNetwork { id: String::new(), ..good.clone() }, "invalid request: id: empty"),
            (PodNetwork { name: "a;b".into(), ..good.clone() }, "invalid request: args.K8S_POD_NAME: "),
            (
                PodNetwork { port_mappings: vec![port.clone(), port], ..good.clone() },
                "invalid request: port_mappings[1].host_port: host port 80 is mapped twice",
            ),
            (PodNetwork { netns: plain_file, ..good.clone() }, "opening network namespace "),
            (PodNetwork { netns: "/no/such".into(), ..good.clone() }, "opening network namespace /no/such: No such"),
        ] {
            let error = network.attach(&bad).await.unwrap_err().chain();
            assert!(error.starts_with(want), "{error}");
            // Who undoes such a request is not stuck with it.
            if !want.contains(" id: ") {
                network.detach(&bad).await.unwrap();
            }
        }
        network.detach(&PodNetwork { id: "s1".into(), ..PodNetwork::default() }).await.unwrap();
        assert_eq!(node.log().matches("DEL").count(), 6, "{}", node.log());
        fs::remove_file(node.path("log")).unwrap();
        assert_eq!((node.log().as_str(), node.records().len()), ("", 0));
    });
}

#[test]
fn a_pod_without_an_address_is_no_pod() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        node.script("second", "echo '{}'");
        let (_, _netns, _, attached) = attach(&node, node.config()).await;
        assert_eq!(attached.unwrap_err().chain(), "network n gave s1 no address on eth0");
        assert_eq!(node.records(), Vec::<String>::new());
    });
}

#[test]
fn a_plugin_may_leave_a_child_with_its_pipes() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "1.0.0");
        node.script("second", &format!("echo '{RESULT}'; sleep 60 &"));
        let started = Instant::now();
        let (network, _netns, pod, attached) = attach(&node, node.config()).await;
        attached.unwrap();
        assert!(started.elapsed() < Duration::from_secs(50));
        node.script("second", "exit 0");
        network.detach(&pod).await.unwrap();
    });
}

#[test]
fn environment_and_standard_input_are_as_specified() {
    block_on(async {
        let node = Node::new();
        two_plugins(&node, "0.4.0");
        let body = format!(
            "env | grep ^CNI_ | sort >>$LOG; cat >>$LOG; echo >>$LOG; echo '{}'",
            r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.5/24"}],"mine":1}"#
        );
        node.script("first", &body);
        node.script("second", &body);
        let (network, _netns, pod, attached) = attach(&node, node.config()).await;
        attached.unwrap();
        let environment = |verb: &str| {
            format!(
                "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;\
                 K8S_POD_INFRA_CONTAINER_ID=s1;K8S_POD_UID=uid-1\n\
                 CNI_COMMAND={verb}\nCNI_CONTAINERID=s1\nCNI_IFNAME=eth0\nCNI_NETNS={}\nCNI_PATH={}\n",
                pod.netns.display(),
                node.path("bin").display()
            )
        };
        let prev = r#""prevResult":{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.5/24"}],"mine":1}"#;
        let first = r#"{"type":"first","cniVersion":"0.4.0","name":"n""#;
        let second = r#"{"type":"second","cniVersion":"0.4.0","name":"n""#;
        let add = environment("ADD");
        assert_eq!(node.log(), format!("{add}{first}}}\n{add}{second},{prev}}}\n"));
        fs::remove_file(node.path("log")).unwrap();
        network.check(&pod).await.unwrap();
        let check = environment("CHECK");
        assert_eq!(node.log(), format!("{check}{first},{prev}}}\n{check}{second},{prev}}}\n"));
        fs::remove_file(node.path("log")).unwrap();
        network.detach(&pod).await.unwrap();
        let del = environment("DEL");
        assert_eq!(node.log(), format!("{del}{second},{prev}}}\n{del}{first},{prev}}}\n"));
    });
}
