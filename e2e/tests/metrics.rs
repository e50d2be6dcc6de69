//! What a node tells about itself: metrics of pods over CRI, container events, Prometheus text, why a container ended,
//! what file systems hold, and the verbose status.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use kevel_e2e::{Node, NodeOptions, Registry, patience, until};
use kevel_proto::{
    any,
    containerd::{
        events::TaskOom,
        services::events::v1::{SubscribeRequest, events_client::EventsClient},
        types::Envelope,
    },
    runtime::v1 as cri,
};
use tonic::{Streaming, transport::Channel};

type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;
type Images = cri::image_service_client::ImageServiceClient<Channel>;

/// Longer than anything takes on a busy machine.
fn limit() -> Duration {
    patience(60)
}

const MIB: i64 = 1 << 20;

/// What critest's metrics specifications name, except what its list of values that need not be there names.
const CRITEST_NAMES: &str = "cpu_cfs_periods_total cpu_cfs_throttled_periods_total cpu_cfs_throttled_seconds_total \
    cpu_system_seconds_total cpu_usage_seconds_total cpu_user_seconds_total file_descriptors fs_inodes_free \
    fs_inodes_total fs_limit_bytes fs_usage_bytes last_seen memory_cache memory_failcnt memory_failures_total \
    memory_kernel_usage memory_mapped_file memory_max_usage_bytes memory_rss memory_swap memory_usage_bytes \
    memory_working_set_bytes network_receive_bytes_total network_receive_errors_total \
    network_receive_packets_dropped_total network_receive_packets_total network_transmit_bytes_total \
    network_transmit_errors_total network_transmit_packets_dropped_total network_transmit_packets_total \
    oom_events_total processes sockets spec_cpu_period spec_cpu_shares spec_memory_limit_bytes \
    spec_memory_swap_limit_bytes start_time_seconds threads threads_max spec_cpu_quota \
    spec_memory_reservation_limit_bytes ulimits_soft";

struct Setup {
    registry: Registry,
    node: Node,
    runtime: Runtime,
    images: Images,
}

async fn setup() -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let options = NodeOptions {
        config: "[plugins.\"io.containerd.server.v1.metrics\"]\naddress = \"127.0.0.1:0\"\n\
            [plugins.\"io.containerd.cri.v1.images\"]\nstats_collect_period = 0\n"
            .to_owned(),
        ..registry.node_options()
    };
    let node = Node::start(&options).unwrap();
    let (runtime, images) = node.cri().await.unwrap();
    let mut setup = Setup { registry, node, runtime, images };
    let request = cri::PullImageRequest { image: Some(setup.image()), ..Default::default() };
    setup.images.pull_image(request).await.unwrap();
    setup
}

impl Setup {
    fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        self.node.pod(name)
    }

    fn image(&self) -> cri::ImageSpec {
        cri::ImageSpec { image: self.registry.reference("busybox").to_owned(), ..Default::default() }
    }

    async fn run(&mut self, pod: &cri::PodSandboxConfig) -> String {
        let request = cri::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
        self.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    /// Makes and starts a container that runs a shell script, with these limits.
    async fn start(
        &mut self,
        id: &str,
        pod: &cri::PodSandboxConfig,
        name: &str,
        script: &str,
        limits: cri::LinuxContainerResources,
    ) -> String {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(self.image()),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(cri::LinuxContainerConfig { resources: Some(limits), ..Default::default() }),
            ..Default::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: id.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        };
        let container_id = self.runtime.create_container(request).await.unwrap().into_inner().container_id;
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        self.runtime.start_container(request).await.unwrap();
        container_id
    }

    async fn exec(&mut self, container_id: &str, script: &str) -> cri::ExecSyncResponse {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = cri::ExecSyncRequest { container_id: container_id.to_owned(), cmd, timeout: 30 };
        self.runtime.exec_sync(request).await.unwrap().into_inner()
    }

    /// The status of a container once it has ended.
    async fn ended(&mut self, container_id: &str) -> cri::ContainerStatus {
        let begun = Instant::now();
        loop {
            let request = cri::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: false };
            let status = self.runtime.container_status(request).await.unwrap().into_inner().status.unwrap();
            if status.state() == cri::ContainerState::ContainerExited {
                return status;
            }
            assert!(begun.elapsed() < limit(), "it did not end: {status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn events(&mut self) -> Streaming<cri::ContainerEventResponse> {
        self.runtime.get_container_events(cri::GetEventsRequest {}).await.unwrap().into_inner()
    }

    /// The core's events of kills for want of memory.
    async fn kills(&self) -> Streaming<Envelope> {
        let filters = vec!["topic==/tasks/oom".to_owned()];
        let mut client = EventsClient::new(self.node.channel().await.unwrap());
        client.subscribe(SubscribeRequest { filters }).await.unwrap().into_inner()
    }

    async fn metrics_of(&mut self, pod: &str) -> cri::PodSandboxMetrics {
        let request = cri::ListPodSandboxMetricsRequest {};
        let listed = self.runtime.list_pod_sandbox_metrics(request).await.unwrap().into_inner().pod_metrics;
        listed.into_iter().find(|one| one.pod_sandbox_id == pod).unwrap()
    }

    async fn remove_pod(&mut self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.runtime.stop_pod_sandbox(stop).await.unwrap();
        self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
    }

    /// What Prometheus gets.
    fn prometheus(&self) -> String {
        let address = until("the metrics listener", || {
            let log = self.node.log();
            let line = log.lines().find(|line| line.contains("metrics are served"))?.to_owned();
            Some(line.split("address=").nth(1)?.split_whitespace().next()?.trim_matches('"').to_owned())
        });
        let mut stream = TcpStream::connect(address.unwrap()).unwrap();
        stream.write_all(b"GET /v1/metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// The directory of the memory controller's cgroup that this node's pods are below, and the file of its limit.
    fn memory_limit_file(&self) -> PathBuf {
        let v1 = PathBuf::from("/sys/fs/cgroup/memory").join(self.node.mark()).join("memory.limit_in_bytes");
        if v1.exists() { v1 } else { PathBuf::from("/sys/fs/cgroup").join(self.node.mark()).join("memory.max") }
    }
}

fn limits() -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 1024,
        memory_limit_in_bytes: 64 * MIB,
        memory_swap_limit_in_bytes: 64 * MIB,
        ..Default::default()
    }
}

/// Whose process was killed, by the next event.
async fn killed(events: &mut Streaming<Envelope>) -> String {
    let next = tokio::time::timeout(limit(), events.message()).await.expect("no event comes");
    any::unpack::<TaskOom>(&next.unwrap().unwrap().event.unwrap()).unwrap().container_id
}

/// Takes more memory than any limit here.
const EAT: &str = "dd if=/dev/zero of=/dev/null bs=300M count=1";

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_critest_wants_has_a_value() {
    let mut setup = setup().await;
    let pod = setup.pod("metered");
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "app", "exec sleep 1000", limits()).await;
    setup.exec(&container, "mkdir /d; for i in 1 2 3; do echo hi > /d/$i; done; sync").await;

    let request = cri::ListMetricDescriptorsRequest {};
    let described = setup.runtime.list_metric_descriptors(request).await.unwrap().into_inner().descriptors;
    let labels: BTreeMap<&str, usize> = described.iter().map(|one| (one.name.as_str(), one.label_keys.len())).collect();
    assert!(described.iter().all(|one| !one.help.is_empty() && !one.label_keys.is_empty()));
    let found = setup.metrics_of(&id).await;
    let all = found.metrics.iter().chain(found.container_metrics.iter().flat_map(|one| &one.metrics));
    let mut names = BTreeSet::new();
    for metric in all {
        assert_eq!(labels.get(metric.name.as_str()), Some(&metric.label_values.len()), "{}", metric.name);
        assert!(metric.timestamp > 0 && metric.value.is_some());
        names.insert(metric.name.as_str());
    }
    let missing: Vec<_> =
        CRITEST_NAMES.split_whitespace().filter(|name| !names.contains(format!("container_{name}").as_str())).collect();
    assert!(missing.is_empty(), "no value for {missing:?}");

    let own = found.container_metrics.iter().find(|one| one.container_id == container).unwrap();
    let value = |name: &str| {
        let one = own.metrics.iter().find(|one| one.name == format!("container_{name}"));
        one.unwrap_or_else(|| panic!("{name}")).value.unwrap().value
    };
    assert_eq!(value("spec_memory_limit_bytes"), u64::try_from(64 * MIB).unwrap());
    assert_eq!((value("spec_cpu_quota"), value("processes")), (20_000, 1));
    assert!((1..64 * 1024 * 1024).contains(&value("memory_usage_bytes")));
    assert_eq!(own.metrics[0].label_values[..4], ["metered", "default", "app", container.as_str()]);
    // The pod's network is read where the pod is: `eth0`, and no interface of the node's.
    let interface = |one: &cri::Metric| one.label_values.last().cloned();
    let network = found.metrics.iter().filter(|one| one.name == "container_network_receive_bytes_total");
    assert_eq!(network.filter_map(interface).collect::<Vec<_>>(), ["eth0"]);

    let request = cri::StreamPodSandboxMetricsRequest {};
    let mut stream = setup.runtime.stream_pod_sandbox_metrics(request).await.unwrap().into_inner();
    let streamed = stream.message().await.unwrap().unwrap().pod_sandbox_metrics;
    assert_eq!(streamed.iter().map(|one| &one.pod_sandbox_id).collect::<Vec<_>>(), [&id]);

    // Cores are known without two questions of the same client.
    let begun = Instant::now();
    loop {
        let request = cri::ContainerStatsRequest { container_id: container.clone() };
        let stats = setup.runtime.container_stats(request).await.unwrap().into_inner().stats.unwrap();
        if stats.cpu.unwrap().usage_nano_cores.is_some() {
            break;
        }
        assert!(begun.elapsed() < limit(), "nobody looks at CPU time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    setup.remove_pod(&id).await;
    setup.node.remove_parent_cgroup();
    setup.node.assert_no_leaks().unwrap();
}

type Told = (cri::ContainerEventType, String);

async fn collect(
    stream: &mut Streaming<cri::ContainerEventResponse>,
    count: usize,
) -> Vec<cri::ContainerEventResponse> {
    let mut events = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(limit(), stream.message()).await;
        events.push(next.expect("no event comes").unwrap().unwrap());
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_complete_in_order_and_wait_for_nobody() {
    use cri::ContainerEventType::{
        ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted, ContainerStartedEvent as Started,
        ContainerStoppedEvent as Stopped,
    };
    let mut setup = setup().await;
    let mut fast = setup.events().await;
    let mut slow = setup.events().await; // read when everything is over
    let pod = setup.pod("told");
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "brief", "exit 4", cri::LinuxContainerResources::default()).await;
    assert_eq!(setup.ended(&container).await.exit_code, 4);
    let first = collect(&mut fast, 5).await;

    // A status that is asked for is newer than every event before it, and says the same as the last of them.
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), ..Default::default() };
    let status = setup.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    assert!(status.timestamp > first[4].created_at, "{} {}", status.timestamp, first[4].created_at);
    assert_eq!(status.containers_statuses, first[4].containers_statuses);
    assert_eq!(status.status, first[4].pod_sandbox_status);

    setup.remove_pod(&id).await;
    let mut events = first;
    events.extend(collect(&mut fast, 3).await);
    let told: Vec<Told> = events.iter().map(|one| (one.container_event_type(), one.container_id.clone())).collect();
    let want: Vec<Told> = [
        (Created, &id),
        (Started, &id),
        (Created, &container),
        (Started, &container),
        (Stopped, &container),
        (Stopped, &id),
        (Deleted, &container),
        (Deleted, &id),
    ]
    .map(|(what, whose)| (what, whose.clone()))
    .to_vec();
    assert_eq!(told, want);
    assert!(events.is_sorted_by(|a, b| a.created_at < b.created_at));
    for (index, event) in events.iter().enumerate() {
        let pod = event.pod_sandbox_status.as_ref().unwrap();
        assert_eq!(pod.metadata.as_ref().unwrap().uid, "uid-told", "{index}");
        let ready = pod.state() == cri::PodSandboxState::SandboxReady;
        assert_eq!(ready, index < 5, "{index}");
        let states: Vec<_> = event.containers_statuses.iter().map(cri::ContainerStatus::state).collect();
        let want = match index {
            2 => vec![cri::ContainerState::ContainerCreated],
            3 => vec![cri::ContainerState::ContainerRunning],
            4 | 5 => vec![cri::ContainerState::ContainerExited],
            _ => vec![],
        };
        assert_eq!(states, want, "{index}");
    }
    assert_eq!(collect(&mut slow, 8).await, events);
    setup.node.remove_parent_cgroup();
    setup.node.assert_no_leaks().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_the_kernel_killed_says_so_and_no_other_does() {
    let mut setup = setup().await;
    let pod = setup.pod("hungry");
    let id = setup.run(&pod).await;
    let mut oom = setup.kills().await;
    let small = || cri::LinuxContainerResources {
        memory_limit_in_bytes: 32 * MIB,
        memory_swap_limit_in_bytes: 32 * MIB,
        ..Default::default()
    };
    // Its first process, and a child of it.
    let first = setup.start(&id, &pod, "first", &format!("exec {EAT}"), small()).await;
    let status = setup.ended(&first).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137), "{}", status.message);
    assert!(status.message.contains("the container's memory limit"), "{}", status.message);
    let child = setup.start(&id, &pod, "child", &format!("{EAT}; exit 3"), small()).await;
    let status = setup.ended(&child).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 3), "{}", status.message);
    assert_eq!((killed(&mut oom).await, killed(&mut oom).await), (first, child));

    // The pod's limit kills one container; the other, which fails later, was not killed.
    let none = cri::LinuxContainerResources::default;
    let bystander = setup.start(&id, &pod, "other", "while [ ! -e /go ]; do sleep 0.1; done; exit 1", none()).await;
    fs::write(setup.memory_limit_file(), (48 * MIB).to_string()).unwrap();
    let victim = setup.start(&id, &pod, "victim", &format!("exec {EAT}"), none()).await;
    let status = setup.ended(&victim).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137), "{}", status.message);
    assert!(status.message.contains("above the container's"), "{}", status.message);
    setup.exec(&bystander, "touch /go").await;
    let status = setup.ended(&bystander).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("Error", 1), "{}", status.message);
    assert!(setup.prometheus().contains("container_runtime_crio_containers_oom_total 3\n"));
    drop(oom);
    setup.remove_pod(&id).await;
    setup.node.remove_parent_cgroup();
    setup.node.assert_no_leaks().unwrap();
}

/// Names that dashboards for containerd and CRI-O ask for, and ours.
const PROMETHEUS_NAMES: &str = "containerd_build_info_total containerd_cri_sandbox_list_seconds_count \
    containerd_cri_stream_sandbox_list_seconds_count containerd_cri_container_list_seconds_bucket \
    containerd_cri_stream_container_list_seconds_sum containerd_cri_sandbox_create_network_seconds_count \
    containerd_cri_sandbox_delete_network_seconds_count containerd_cri_sandbox_runtime_create_seconds_count \
    containerd_cri_sandbox_runtime_stop_seconds_count containerd_cri_sandbox_remove_seconds_count \
    containerd_cri_container_create_seconds_count containerd_cri_container_start_seconds_count \
    containerd_cri_container_stop_seconds_count containerd_cri_container_remove_seconds_count \
    containerd_cri_container_events_dropped_total containerd_cri_network_plugin_operations_total_total \
    containerd_cri_network_plugin_operations_duration_seconds_seconds_count containerd_cri_input_entries_total \
    containerd_cri_output_bytes_total containerd_cri_split_entries_total \
    containerd_cri_sandboxed_image_pulls_total containerd_cri_sandboxed_in_progress_image_pulls_total \
    containerd_gc_collections_total containerd_gc_gc_seconds_count grpc_server_started_total \
    grpc_server_handled_total grpc_server_msg_received_total grpc_server_msg_sent_total \
    container_runtime_crio_operations_total container_runtime_crio_operations_latency_seconds_count \
    container_runtime_crio_image_pulls_success_total container_runtime_crio_default_runtime \
    kevel_cri_operation_seconds_count kevel_cri_stage_seconds_count kevel_cri_pods kevel_cri_containers kevel_shims \
    kevel_call_seconds_count process_resident_memory_bytes process_cpu_seconds_total container_pids_current";

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_status_and_file_systems_tell_of_a_pod() {
    let mut setup = setup().await;
    let pod = setup.pod("shown");
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "app", "echo line; exec sleep 1000", limits()).await;
    setup.runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap();
    setup.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap();

    let running = setup.prometheus();
    assert!(running.contains(&format!("container_pids_current{{container_id=\"{container}\",namespace=\"k8s.io\"}}")));
    assert!(running.contains("kevel_cri_pods{state=\"ready\"} 1\n"), "{running}");
    assert!(running.contains("kevel_shims{state=\"ok\"} 2\n"), "{running}");

    // What a container writes is the container's, and what an image brought is the images'.
    let info = |info: cri::ImageFsInfoResponse| {
        let used = |list: &[cri::FilesystemUsage]| list[0].used_bytes.unwrap().value;
        (used(&info.image_filesystems), used(&info.container_filesystems))
    };
    let before = info(setup.images.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner());
    assert!(before.0 > 500_000, "{before:?}");
    setup.exec(&container, "dd if=/dev/urandom of=/big bs=1M count=5; sync").await;
    let begun = Instant::now();
    loop {
        let now = info(setup.images.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner());
        if now.1 >= before.1 + 5 * 1024 * 1024 {
            assert_eq!(now.0, before.0);
            break;
        }
        assert!(begun.elapsed() < limit(), "{before:?} {now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let request = cri::StatusRequest { verbose: true };
    let status = setup.runtime.status(request).await.unwrap().into_inner();
    let entry = |key: &str| serde_json::from_str::<serde_json::Value>(&status.info[key]).unwrap();
    assert_eq!(entry("lastCNILoadStatus"), "OK");
    assert_eq!(entry("runtimeHandlers")["runc"]["runtimeType"], "io.containerd.runc.v2");
    assert_eq!((entry("shims")["ok"].as_u64(), entry("operations")), (Some(2), serde_json::json!([])));
    let plugins = entry("plugins");
    let mut plugins = plugins.as_array().unwrap().iter();
    assert!(plugins.any(|one| one["uri"] == "io.containerd.grpc.v1.cri" && one["status"] == "ok"));

    let request = cri::StopContainerRequest { container_id: container.clone(), timeout: 0 };
    setup.runtime.stop_container(request).await.unwrap();
    let request = cri::RemoveContainerRequest { container_id: container.clone() };
    setup.runtime.remove_container(request).await.unwrap();
    setup.remove_pod(&id).await;
    let text = setup.prometheus();
    let begins = |name: &str| {
        text.lines().any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")))
    };
    let gone = "container_pids_current";
    let missing: Vec<_> = PROMETHEUS_NAMES.split_whitespace().filter(|name| *name != gone && !begins(name)).collect();
    assert!(missing.is_empty(), "{missing:?}\n{text}");
    assert!(text.contains(
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"RunPodSandbox\",\
         grpc_service=\"runtime.v1.RuntimeService\",grpc_type=\"unary\"} 1\n"
    ));
    assert!(
        text.contains("containerd_cri_network_plugin_operations_total_total{operation_type=\"tear_down_pod\"} 1\n")
    );
    assert!(!text.contains(&container), "numbers of a container that is gone");
    setup.node.remove_parent_cgroup();
    setup.node.assert_no_leaks().unwrap();
}
