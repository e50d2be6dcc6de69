//! Cgroups of version 2, by their files and by systemd: limits are where the kernel reads them, a container sees its own cgroup
//! alone, statistics have what version 2 tells, and a kill for want of memory is told as one. Where a node has version 1, its
//! tests are those of `features` and `metrics`.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use kevel_e2e::{Client, Node, NodeOptions, Registry, eventually, find, run, skip_without};
use kevel_proto::runtime::v1 as cri;

/// The handler whose cgroups systemd makes.
const SYSTEMD: &str = "systemd";
const MIB: i64 = 1 << 20;
/// More memory than any container here may have, at once.
const EAT: &str = "dd if=/dev/zero of=/dev/null bs=300M count=1";

struct Setup {
    _registry: Registry,
    node: Node,
    pods: Client,
}

async fn setup() -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let runtime = "plugins.\"io.containerd.cri.v1.runtime\"";
    let handler = format!("{runtime}.containerd.runtimes.{SYSTEMD}");
    let options = format!("[{handler}.options]\nSystemdCgroup = true\n");
    let options = NodeOptions {
        config: format!(
            "[{runtime}]\ndisable_hugetlb_controller = false\n[{handler}]\nruntime_type = \"io.containerd.runc.v2\"\n{options}"
        ),
        ..registry.node_options()
    };
    let node = Node::start(&options).unwrap();
    let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
    Setup { _registry: registry, node, pods }
}

fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn systemd_runs() -> bool {
    is_unified() && Path::new("/run/systemd/private").exists()
}

fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

impl Setup {
    /// A container's first process on the node.
    async fn pid(&self, id: &str) -> u64 {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let answer = self.pods.runtime.clone().container_status(request).await.unwrap().into_inner();
        let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
        info["pid"].as_u64().unwrap()
    }

    /// The directory of a container's cgroup.
    async fn group(&self, id: &str) -> PathBuf {
        let table = fs::read_to_string(format!("/proc/{}/cgroup", self.pid(id).await)).unwrap();
        let path = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
        Path::new("/sys/fs/cgroup").join(path)
    }

    async fn start(&self, pod: &str, name: &str, config: cri::ContainerConfig) -> String {
        let id = self.pods.create(pod, name, config).await.unwrap();
        self.pods.start(&id, None).await.unwrap();
        id
    }

    async fn shell(&self, id: &str, script: &str) -> String {
        let (code, said) = self.pods.exec(id, script).await.unwrap();
        assert_eq!(code, 0, "{script}: {said}");
        said
    }

    async fn finish(self, pod: &str) {
        self.pods.stop_pod(pod).await.unwrap();
        self.pods.remove_pod(pod).await.unwrap();
        self.node.remove_parent_cgroup();
        self.node.assert_no_leaks().unwrap();
    }
}

#[track_caller]
fn assert_files(group: &Path, want: &[(&str, &str)]) {
    for (file, value) in want {
        let path = group.join(file);
        let found = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(found.trim(), *value, "{file}");
    }
}

/// A limit of every sort that version 2 has, as the kubelet asks for them.
fn every_limit(config: &mut cri::ContainerConfig) {
    let unified = [("memory.high", "50331648"), ("memory.oom.group", "1"), ("pids.max", "77")];
    *resources(config) = cri::LinuxContainerResources {
        cpu_shares: 512,
        cpu_period: 100_000,
        cpu_quota: 20_000,
        memory_limit_in_bytes: 64 * MIB,
        memory_swap_limit_in_bytes: 80 * MIB,
        cpuset_cpus: "0".to_owned(),
        hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".to_owned(), limit: 4 << 20 }],
        unified: unified.map(|(file, value)| (file.to_owned(), value.to_owned())).into(),
        ..Default::default()
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_where_the_kernel_reads_them() {
    if skip_without("cgroup2", is_unified()) {
        return;
    }
    let setup = setup().await;
    let pod = setup.pods.run(setup.pods.config("limits"), "").await.unwrap();
    let mut config = setup.pods.container("app", "exec sleep 1000");
    every_limit(&mut config);
    let app = setup.start(&pod, "limits", config.clone()).await;
    let group = setup.group(&app).await;
    assert!(group.ends_with(Path::new(&setup.node.mark()).join(&app)), "{}", group.display());
    let mut want = vec![
        ("cpu.weight", "20"),
        ("cpu.max", "20000 100000"),
        ("memory.max", "67108864"),
        ("memory.swap.max", "16777216"), // version 2 counts swap alone
        ("cpuset.cpus", "0"),
        ("hugetlb.2MB.max", "4194304"),
        ("memory.high", "50331648"),
        ("memory.oom.group", "1"),
        ("pids.max", "77"),
    ];
    assert_files(&group, &want);

    // It sees that cgroup and no other, and cannot change it.
    assert_eq!(setup.shell(&app, "cat /proc/self/cgroup").await, "0::/");
    assert_eq!(setup.shell(&app, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").await, "67108864\n77");
    let (code, said) = setup.pods.exec(&app, "echo max > /sys/fs/cgroup/pids.max").await.unwrap();
    assert!(code != 0 && said.contains("Read-only file system"), "{code} {said}");

    // Changes are seen at once, and a file that nobody knows changes nothing.
    let change = |limits| cri::UpdateContainerResourcesRequest {
        container_id: app.clone(),
        linux: Some(limits),
        ..Default::default()
    };
    let unified = [("memory.high".to_owned(), "62914560".to_owned())].into();
    let more = cri::LinuxContainerResources { memory_limit_in_bytes: 72 * MIB, unified, ..Default::default() };
    setup.pods.runtime.clone().update_container_resources(change(more)).await.unwrap();
    (want[2], want[6]) = (("memory.max", "75497472"), ("memory.high", "62914560"));
    want.remove(3);
    assert_files(&group, &want);
    let unified = [("memory.nonsense".to_owned(), "1".to_owned())].into();
    let bad = cri::LinuxContainerResources { unified, ..Default::default() };
    setup.pods.runtime.clone().update_container_resources(change(bad)).await.unwrap_err();
    assert_files(&group, &want);

    // Nor does a container start with one.
    let mut config = setup.pods.container("bad", "exec sleep 1000");
    resources(&mut config).unified = [("memory.nonsense".to_owned(), "1".to_owned())].into();
    let bad = setup.pods.create(&pod, "limits", config).await.unwrap();
    let refused = setup.pods.start(&bad, None).await.unwrap_err();
    assert!(refused.message().contains("memory.nonsense"), "{refused:?}");
    assert_eq!(setup.pods.status(&bad).await.unwrap().state(), cri::ContainerState::ContainerExited);

    statistics(&setup, &pod, &app).await;
    setup.finish(&pod).await;
}

/// What version 2 tells beyond version 1.
async fn statistics(setup: &Setup, pod: &str, app: &str) {
    let mut client = setup.pods.runtime.clone();
    let request = cri::ContainerStatsRequest { container_id: app.to_owned() };
    let stats = client.container_stats(request).await.unwrap().into_inner().stats.unwrap();
    let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
    assert!(cpu.usage_core_nano_seconds.unwrap().value > 0);
    let (available, set) = (memory.available_bytes.unwrap().value, memory.working_set_bytes.unwrap().value);
    assert_eq!(available + set, 75_497_472, "of the limit");
    assert!(memory.usage_bytes.unwrap().value >= set && memory.rss_bytes.unwrap().value > 0);
    assert!(memory.page_faults.unwrap().value > 0);
    let swap = stats.swap.unwrap();
    assert_eq!(swap.swap_usage_bytes.unwrap().value, 0);
    assert!(cpu.psi.is_some() && memory.psi.is_some() && stats.io.unwrap().psi.is_some(), "pressure");

    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: pod.to_owned() };
    let linux = client.pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap().linux.unwrap();
    assert!(linux.cpu.unwrap().psi.is_some() && linux.memory.unwrap().psi.is_some() && linux.io.is_some());
    assert!(linux.process.unwrap().process_count.unwrap().value >= 2, "the container's and the sandbox's");

    let request = cri::ListPodSandboxMetricsRequest {};
    let metrics = client.list_pod_sandbox_metrics(request).await.unwrap().into_inner().pod_metrics;
    let own = metrics.iter().flat_map(|pod| &pod.container_metrics).find(|one| one.container_id == app).unwrap();
    for name in ["pressure_cpu_waiting_seconds_total", "pressure_io_stalled_seconds_total", "memory_max_usage_bytes"] {
        assert!(own.metrics.iter().any(|one| one.name == format!("container_{name}")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_container_sees_the_nodes_cgroups_and_an_ordinary_one_no_devices() {
    if skip_without("cgroup2", is_unified()) {
        return;
    }
    let setup = setup().await;
    let mut sandbox = setup.pods.config("devices");
    sandbox.linux.as_mut().unwrap().security_context.get_or_insert_default().privileged = true;
    let pod = setup.pods.run(sandbox, "").await.unwrap();
    // The kernel's log of the node: a device that nobody gave to the container. Programs in the cgroup rule over devices.
    let look = "mknod /log c 1 11; head -c 1 /log 2>&1; head -c 1 /dev/zero | wc -c";
    let plain = setup.start(&pod, "devices", setup.pods.container("plain", "exec sleep 1000")).await;
    let said = setup.shell(&plain, look).await;
    assert!(said.contains("Operation not permitted") && said.ends_with('1'), "{said}");

    let mut config = setup.pods.container("mighty", "exec sleep 1000");
    config.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
    let mighty = setup.start(&pod, "devices", config).await;
    let said = setup.shell(&mighty, look).await;
    assert!(!said.contains("not permitted"), "{said}");
    let own = setup.shell(&mighty, "cat /proc/self/cgroup").await;
    assert_eq!(own, format!("0::/{}/{mighty}", setup.node.mark()));
    let file = format!("/sys/fs/cgroup/{}/{mighty}/pids.max", setup.node.mark());
    assert_eq!(setup.shell(&mighty, &format!("echo 99 > {file}; cat {file}")).await, "99");

    // With `memory.oom.group` all processes of the container are killed when one asks for too much; without, only that one.
    let script = format!("{EAT} & while :; do sleep 1; done");
    let limited = |name: &str, group: &str| {
        let mut config = setup.pods.container(name, &script);
        let limits = resources(&mut config);
        (limits.memory_limit_in_bytes, limits.memory_swap_limit_in_bytes) = (32 * MIB, 32 * MIB);
        limits.unified = [("memory.oom.group".to_owned(), group.to_owned())].into();
        config
    };
    let whole = setup.start(&pod, "devices", limited("whole", "1")).await;
    let single = setup.start(&pod, "devices", limited("single", "0")).await;
    let status = setup.pods.ended(&whole).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137), "{}", status.message);
    let events = setup.group(&single).await.join("memory.events");
    let killed = || fs::read_to_string(&events).is_ok_and(|text| text.lines().any(|line| line == "oom_kill 1"));
    eventually("the kernel to kill the one", async || killed()).await;
    assert_eq!(setup.pods.status(&single).await.unwrap().state(), cri::ContainerState::ContainerRunning);
    setup.pods.stop(&single, 0).await.unwrap();
    let status = setup.pods.status(&single).await.unwrap();
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137), "as containerd and CRI-O have it");
    setup.finish(&pod).await;
}

/// The slice of a pod; the kubelet makes and removes it.
struct Slice(String);

impl Drop for Slice {
    fn drop(&mut self) {
        if let Ok(program) = find("systemctl") {
            let _ = run(&program, &["stop", &self.0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_makes_and_removes_cgroups() {
    if skip_without("systemd", systemd_runs()) {
        return;
    }
    let mut setup = setup().await;
    let slice = Slice(format!("{}.slice", setup.node.mark().replace('-', "_")));
    let mut sandbox = setup.pods.config("slice");
    // As the kubelet says it: a path whose last part counts.
    sandbox.linux.as_mut().unwrap().cgroup_parent = format!("/kubepods.slice/{}", slice.0);
    let pod = setup.pods.run(sandbox, SYSTEMD).await.unwrap();
    let mut config = setup.pods.container("app", "exec sleep 1000");
    every_limit(&mut config);
    // systemd knows no limit of huge pages.
    resources(&mut config).hugepage_limits.clear();
    let app = setup.start(&pod, "slice", config).await;
    let group = setup.group(&app).await;
    let want = Path::new("/sys/fs/cgroup").join(&slice.0).join(format!("cri-containerd-{app}.scope"));
    assert_eq!(group, want);
    let files = [("cpu.weight", "20"), ("memory.max", "67108864"), ("memory.high", "50331648"), ("pids.max", "77")];
    assert_files(&group, &files);
    let shown = run(&find("systemctl").unwrap(), &["show", "-P", "MemoryMax", &format!("cri-containerd-{app}.scope")]);
    assert_eq!(shown.unwrap().ok().unwrap().trim(), "67108864");
    assert_eq!(setup.shell(&app, "cat /proc/self/cgroup").await, "0::/");

    // The daemon finds everything again.
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    setup.pods.reconnect(&setup.node).await.unwrap();
    let request = cri::ContainerStatsRequest { container_id: app.clone() };
    let stats = setup.pods.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().psi.is_some());
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let linux = setup.pods.runtime.clone().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap().linux;
    assert!(linux.unwrap().process.unwrap().process_count.unwrap().value >= 2);

    // systemd removes the cgroup of what was killed; the reason is known all the same.
    for name in ["first", "second"] {
        let mut config = setup.pods.container(name, &format!("exec {EAT}"));
        let limits = resources(&mut config);
        (limits.memory_limit_in_bytes, limits.memory_swap_limit_in_bytes) = (32 * MIB, 32 * MIB);
        let hungry = setup.start(&pod, "slice", config).await;
        let status = setup.pods.ended(&hungry).await;
        assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137), "{name}: {}", status.message);
    }
    let mut config = setup.pods.container("fails", "exit 137");
    resources(&mut config).memory_limit_in_bytes = 32 * MIB;
    let fails = setup.start(&pod, "slice", config).await;
    let status = setup.pods.ended(&fails).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("Error", 137), "nobody killed it");

    setup.pods.stop_pod(&pod).await.unwrap();
    setup.pods.remove_pod(&pod).await.unwrap();
    let scopes = || fs::read_dir(Path::new("/sys/fs/cgroup").join(&slice.0)).into_iter().flatten().flatten();
    eventually("the scopes to be gone", async || scopes().all(|entry| !entry.path().is_dir())).await;
    drop(slice);
    setup.node.assert_no_leaks().unwrap();
}
