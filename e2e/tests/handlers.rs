//! What a handler's configuration changes for its containers, seen in the spec and from inside: a base spec, annotations by
//! glob, the node's devices, a writable cgroup; and limits that depend on the node: huge pages, swap, devices.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{fs, path::Path};

use kevel_e2e::{Client, Faults, Ledger, Node, NodeOptions, Registry};
use kevel_proto::runtime::v1 as cri;
use serde_json::{Value, json};
use tonic::Code;

const MIB: i64 = 1 << 20;

struct Setup {
    _registry: Registry,
    node: Node,
    faults: Faults,
    pods: Client,
    before: Ledger,
}

/// `lines` are for the table of the runtime; `{name}` tables of handlers follow, each with its lines.
async fn setup(lines: &str, handlers: &[(&str, &str)]) -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let faults = Faults::new().unwrap();
    let table = |(name, lines): &(&str, &str)| {
        let lines = lines.replace("FAULTS", &faults.path("").display().to_string());
        format!(
            "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.{name}]\nruntime_type = \"io.containerd.runc.v2\"\n{lines}\n"
        )
    };
    let options = NodeOptions { config: handlers.iter().map(table).collect(), ..registry.node_options() };
    // What a handler starts from instead of the daemon's own: as small as a runtime takes it.
    let base = json!({
        "ociVersion": "1.0.2", "hostname": "", "annotations": {"org.example.base": "yes"},
        "process": {"cwd": "/", "env": ["BASE=1"], "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 321, "hard": 321}]},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/base", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}]},
    });
    fs::write(faults.path("base.json"), base.to_string()).unwrap();
    let mut node = faults.node(options, "", lines).unwrap();
    node.launch().unwrap();
    let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
    let first = pods.run(pods.config("first"), "").await.unwrap();
    pods.remove_pod(&first).await.unwrap();
    let before = Ledger::of(&node, &faults).unwrap();
    Setup { _registry: registry, node, faults, pods, before }
}

impl Setup {
    /// A pod that may hold privileged containers.
    async fn pod(&self, name: &str, handler: &str) -> String {
        let mut config = self.pods.config(name);
        config.annotations = [("org.example.pod".to_owned(), "p".to_owned())].into();
        let security = cri::LinuxSandboxSecurityContext { privileged: true, ..Default::default() };
        config.linux.as_mut().unwrap().security_context = Some(security);
        self.pods.run(config, handler).await.unwrap()
    }

    /// A container that sleeps, started.
    async fn start(&self, pod: &str, name: &str, change: impl FnOnce(&mut cri::ContainerConfig)) -> String {
        let mut config = self.pods.container(name, "exec sleep 1000");
        config.linux = Some(cri::LinuxContainerConfig::default());
        change(&mut config);
        let id = self.pods.create(pod, name, config).await.unwrap();
        self.pods.start(&id, None).await.unwrap();
        id
    }

    /// What a shell in the container says.
    async fn shell(&self, id: &str, script: &str) -> String {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 30 };
        let answer = self.pods.runtime.clone().exec_sync(request).await.unwrap().into_inner();
        String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).trim().to_owned()
    }

    /// The spec of a container or sandbox, as the runtime got it.
    fn spec(&self, id: &str) -> Value {
        let said = self.node.ctr(&["-n", "k8s.io", "containers", "info", "--spec", id]).unwrap();
        serde_json::from_str(&said).unwrap()
    }

    async fn finish(&self, pods: &[String]) {
        for pod in pods {
            self.pods.remove_pod(pod).await.unwrap();
        }
        self.before.wait(&self.node, &self.faults).unwrap();
    }
}

fn privileged(config: &mut cri::ContainerConfig) {
    let security = cri::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_start_from_their_own_spec_and_let_annotations_through() {
    let handlers = [
        ("based", "base_runtime_spec = \"FAULTS/base.json\"\nsnapshotter = \"native\""),
        (
            "annotated",
            "pod_annotations = [\"org.example.*\"]\ncontainer_annotations = [\"dev.example.?\", \"other/*\"]",
        ),
    ];
    let setup = setup("", &handlers).await;
    let based = setup.pod("based", "based").await;
    let container = setup.start(&based, "based", |_| ()).await;
    let spec = setup.spec(&container);
    assert_eq!(spec["annotations"]["org.example.base"], "yes");
    assert_eq!(spec["annotations"]["io.kubernetes.cri.sandbox-name"], "based", "and what belongs there is added");
    let seen = setup.shell(&container, "echo $BASE; ulimit -n; grep -c ' /base tmpfs' /proc/mounts").await;
    assert_eq!(seen, "1\n321\n1");
    let info = setup.node.ctr(&["-n", "k8s.io", "containers", "info", &container]).unwrap();
    assert!(info.contains("\"Snapshotter\": \"native\""), "{info}");

    let annotated = setup.pod("annotated", "annotated").await;
    let all = ["dev.example.x", "dev.example.xy", "other/a", "other/a/b"];
    let container = setup
        .start(&annotated, "annotated", |config| {
            config.annotations = all.iter().map(|key| ((*key).to_owned(), "c".to_owned())).collect();
        })
        .await;
    let spec = setup.spec(&container);
    let through: Vec<_> = all.into_iter().filter(|key| spec["annotations"][*key] == "c").collect();
    assert_eq!(through, ["dev.example.x", "other/a"]);
    assert_eq!(setup.spec(&annotated)["annotations"]["org.example.pod"], "p");
    assert_eq!(setup.spec(&based)["annotations"]["org.example.pod"], Value::Null);
    setup.finish(&[based, annotated]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_privileged_and_of_other_containers() {
    let handlers = [
        ("bare", "privileged_without_host_devices = true"),
        (
            "allowed",
            "privileged_without_host_devices = true\nprivileged_without_host_devices_all_devices_allowed = true",
        ),
    ];
    let setup = setup("", &handlers).await;
    let mut pods = Vec::new();
    // /dev/loop-control is on most nodes, asks for no capability, and no container has it by default.
    if !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: this node has no /dev/loop-control");
        return;
    }
    let rules = "if [ -e /dev/loop-control ]; then echo there; else echo gone; fi
        rm -f /node; mknod /node c 10 237; (: </node) 2>/dev/null && echo allowed || echo denied";
    for (handler, want) in [("runc", "there\nallowed"), ("bare", "gone\ndenied"), ("allowed", "gone\nallowed")] {
        let pod = setup.pod(handler, handler).await;
        let container = setup.start(&pod, handler, privileged).await;
        assert_eq!(setup.shell(&container, rules).await, want, "{handler}");
        pods.push(pod);
    }
    // A device that is asked for can be used as it was asked for, and no other.
    let device = |at: &str, permissions: &str| cri::Device {
        container_path: at.to_owned(),
        host_path: "/dev/loop-control".to_owned(),
        permissions: permissions.to_owned(),
    };
    let use_it = "test -c /dev/own && echo there; (: </dev/own) 2>/dev/null && echo reads
        (: >>/dev/own) 2>/dev/null && echo writes; true";
    for (name, permissions, want) in [("reader", "r", "there\nreads"), ("both", "rw", "there\nreads\nwrites")] {
        let container =
            setup.start(&pods[0], name, |config| config.devices = vec![device("/dev/own", permissions)]).await;
        assert_eq!(setup.shell(&container, use_it).await, want, "{permissions}");
    }
    let mut config = setup.pods.container("wrong", "true");
    config.devices = vec![device("/dev/own", "rx")];
    let error = setup.pods.create(&pods[0], "wrong", config).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("config.devices[0].permissions"), "{error}");
    setup.finish(&pods).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cgroups_are_writable_where_the_handler_says_so() {
    let setup = setup("", &[("writable", "cgroup_writable = true")]).await;
    let mut pods = Vec::new();
    for (handler, want) in [("runc", "ro"), ("writable", "rw")] {
        let pod = setup.pods.run(setup.pods.config(handler), handler).await.unwrap();
        let container = setup.start(&pod, handler, |_| ()).await;
        let spec = setup.spec(&container);
        let mounts = spec["mounts"].as_array().unwrap();
        let cgroup = mounts.iter().find(|mount| mount["destination"] == "/sys/fs/cgroup").unwrap();
        assert!(cgroup["options"].as_array().unwrap().contains(&json!(want)), "{handler}: {cgroup}");
        let inside =
            setup.shell(&container, "grep ' /sys/fs/cgroup' /proc/mounts | tail -1 | cut -d' ' -f4 | cut -d, -f1");
        assert_eq!(inside.await, want, "{handler}");
        pods.push(pod);
    }
    setup.finish(&pods).await;
}

fn limits(config: &mut cri::ContainerConfig) {
    config.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 * MIB,
        memory_swap_limit_in_bytes: 96 * MIB,
        hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".to_owned(), limit: 4 << 20 }],
        ..Default::default()
    });
}

/// The cgroup directory of a container's controller, with the file that a limit is in.
fn cgroup_file(pid: u64, controller: &str, names: &[&str]) -> Option<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let line = table
        .lines()
        .find(|line| line.split(':').nth(1).is_some_and(|all| all.split(',').any(|one| one == controller)));
    let (place, path) = match line {
        Some(line) => (format!("/sys/fs/cgroup/{controller}"), line.splitn(3, ':').nth(2)?),
        None => ("/sys/fs/cgroup".to_owned(), table.lines().find_map(|line| line.strip_prefix("0::"))?),
    };
    let dir = Path::new(&place).join(path.trim_start_matches('/'));
    names.iter().find_map(|name| fs::read_to_string(dir.join(name)).ok()).map(|text| text.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn swap_and_huge_pages_are_limited_as_far_as_the_node_can() {
    // The default leaves huge pages alone, as containerd's does.
    for (lines, limited) in [("", false), ("disable_hugetlb_controller = false", true)] {
        let setup = setup(lines, &[]).await;
        let pod = setup.pods.run(setup.pods.config("pod"), "").await.unwrap();
        let container = setup.start(&pod, "limited", limits).await;
        let spec = setup.spec(&container);
        assert_eq!(spec["linux"]["resources"]["memory"]["swap"], 96 * MIB);
        // A node that has them in another hierarchy than the rest is one that cannot limit them.
        let has = Path::new("/sys/fs/cgroup/hugetlb").is_dir()
            || fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|all| all.contains("hugetlb"));
        let pages = &spec["linux"]["resources"]["hugepageLimits"];
        match (limited, has) {
            (true, true) => assert_eq!(*pages, json!([{"pageSize": "2MB", "limit": 4 << 20}])),
            (true, false) => {
                eprintln!("skipped: this node limits no huge pages, which is tolerated");
                assert!(pages.is_null(), "{pages}");
            }
            (false, _) => assert!(pages.is_null(), "{pages}"),
        }
        let pid = {
            let request = cri::ContainerStatusRequest { container_id: container.clone(), verbose: true };
            let info = setup.pods.runtime.clone().container_status(request).await.unwrap().into_inner().info;
            serde_json::from_str::<Value>(&info["info"]).unwrap()["pid"].as_u64().unwrap()
        };
        // Version 1 counts memory and swap together, version 2 swap alone.
        match cgroup_file(pid, "memory", &["memory.memsw.limit_in_bytes", "memory.swap.max"]) {
            Some(value) => assert!([96 * MIB, 32 * MIB].map(|size| size.to_string()).contains(&value), "{value}"),
            None => eprintln!("skipped: this kernel does not count swap"),
        }
        let resources = setup.pods.status(&container).await.unwrap().resources.unwrap().linux.unwrap();
        assert_eq!(resources.memory_swap_limit_in_bytes, 96 * MIB);
        setup.finish(&[pod]).await;
    }
}
