//! Bad requests: each is refused by the name of its field, and nothing is changed.

#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

mod fake;

use std::{path::Path, sync::Arc};

use fake::Fake;
use kevel_cri_server::{RuntimeRpc, Server, image_service, runtime_service};
use kevel_proto::runtime::v1::{
    image_service_server::ImageService as _, runtime_service_server::RuntimeService as _, *,
};
use tonic::{Code, Request, Status};

fn pod(change: impl FnOnce(&mut PodSandboxConfig)) -> RunPodSandboxRequest {
    let metadata =
        PodSandboxMetadata { name: "web".into(), uid: "4b7c".into(), namespace: "default".into(), attempt: 0 };
    let linux = LinuxPodSandboxConfig {
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(NamespaceOption::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut config = PodSandboxConfig { metadata: Some(metadata), linux: Some(linux), ..Default::default() };
    change(&mut config);
    RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
}

fn container(change: impl FnOnce(&mut ContainerConfig)) -> CreateContainerRequest {
    let mut config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources::default()),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption::default()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    };
    change(&mut config);
    CreateContainerRequest { pod_sandbox_id: "p".into(), config: Some(config), sandbox_config: None }
}

fn security(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

fn rights(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

fn limits(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.as_mut().unwrap()
}

fn user_namespace(mode: NamespaceMode, mappings: &[(u32, u32, u32)]) -> Option<UserNamespace> {
    let map = |m: &(u32, u32, u32)| IdMapping { host_id: m.0, container_id: m.1, length: m.2 };
    let ids: Vec<IdMapping> = mappings.iter().map(map).collect();
    Some(UserNamespace { mode: mode as i32, uids: ids.clone(), gids: ids })
}

fn mount(container_path: &str, host_path: &str) -> Mount {
    Mount { container_path: container_path.into(), host_path: host_path.into(), ..Default::default() }
}

fn profile(kind: i32) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind, localhost_ref: String::new() })
}

#[tokio::test]
async fn metrics_and_events_of_an_empty_node() {
    use futures::{FutureExt as _, StreamExt as _};
    let bench = Bench::new().await;
    let rpc = bench.runtime();
    let listed = rpc.list_metric_descriptors(Request::new(ListMetricDescriptorsRequest {})).await.unwrap();
    let described = listed.into_inner().descriptors;
    assert!(described.len() >= 56 && described.iter().all(|one| one.label_keys.starts_with(&["pod".to_owned()])));
    let listed = rpc.list_pod_sandbox_metrics(Request::new(ListPodSandboxMetricsRequest {})).await.unwrap();
    assert!(listed.into_inner().pod_metrics.is_empty());
    let request = || Request::new(GetEventsRequest {});
    let mut streams = Vec::new();
    let refused = loop {
        match rpc.get_container_events(request()).await {
            Ok(stream) => streams.push(stream.into_inner()),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.code(), streams.len()), (Code::ResourceExhausted, 64));
    assert!(streams[0].next().now_or_never().is_none());
    streams.pop();
    assert!(rpc.get_container_events(request()).await.is_ok());
}

struct Bench {
    fake: Fake,
    server: Arc<Server>,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let (fake, dir) = (Fake::default(), tempfile::tempdir().unwrap());
        let server = fake::server(&fake, dir.path()).await;
        Self { fake, server, dir }
    }

    fn runtime(&self) -> RuntimeRpc {
        RuntimeRpc::new(self.server.clone())
    }

    /// The status is exactly this, and nobody tried to change anything.
    fn check<T>(&self, answer: Result<T, Status>, code: Code, message: &str) {
        let status = answer.err().unwrap_or_else(|| panic!("{message}: it was accepted"));
        assert_eq!((status.code(), status.message()), (code, message));
        assert_eq!(self.fake.changes(), 0, "{message}: something was changed");
        for dir in ["root", "state"] {
            assert!(!Path::new(&self.dir.path().join(dir)).exists(), "{message}: files were made");
        }
    }

    async fn bad_pod(&self, request: RunPodSandboxRequest, message: &str) {
        let answer = self.runtime().run_pod_sandbox(Request::new(request)).await;
        self.check(answer, Code::InvalidArgument, message);
    }

    async fn bad_container(&self, request: CreateContainerRequest, message: &str) {
        let answer = self.runtime().create_container(Request::new(request)).await;
        self.check(answer, Code::InvalidArgument, message);
    }
}

#[tokio::test]
async fn pods() {
    let bench = Bench::new().await;
    let bad = async |change: fn(&mut PodSandboxConfig), message: &str| bench.bad_pod(pod(change), message).await;
    bench.bad_pod(RunPodSandboxRequest::default(), "config: missing").await;
    bad(|c| c.metadata = None, "config.metadata: missing").await;
    bad(|c| c.metadata.as_mut().unwrap().name.clear(), "config.metadata.name: empty").await;
    bad(|c| c.metadata.as_mut().unwrap().uid.clear(), "config.metadata.uid: empty").await;
    bad(|c| c.metadata.as_mut().unwrap().namespace.clear(), "config.metadata.namespace: empty").await;
    bad(|c| c.metadata.as_mut().unwrap().name = "a/b".into(), "config.metadata.name: \"a/b\" is not a name").await;
    bad(|c| c.metadata.as_mut().unwrap().name = "..".into(), "config.metadata.name: \"..\" is not a name").await;
    bad(|c| c.metadata.as_mut().unwrap().uid = "a;b=c".into(), "config.metadata.uid: \"a;b=c\" is not a name").await;
    bad(|c| c.metadata.as_mut().unwrap().name = "x".repeat(254), "config.metadata.name: longer than 253 bytes").await;
    bad(|c| c.hostname = "a\nb".into(), "config.hostname: not a hostname of up to 64 bytes").await;
    bad(|c| c.hostname = "x".repeat(65), "config.hostname: not a hostname of up to 64 bytes").await;
    let relative = "config.log_directory: \"logs\" is not an absolute path";
    bad(|c| c.log_directory = "logs".into(), relative).await;
    bad(|c| c.log_directory = "/a/../b".into(), "config.log_directory: \"/a/../b\" has '..' in it").await;
    bad(|c| drop(c.labels.insert(String::new(), "x".into())), "config.labels: a key is empty").await;
    let servers = |c: &mut PodSandboxConfig| {
        c.dns_config = Some(DnsConfig { servers: vec!["1.1.1.1\nx".into()], ..Default::default() });
    };
    bad(servers, "config.dns_config.servers: not words").await;
    bad(|c| c.windows = Some(WindowsPodSandboxConfig::default()), "config.windows: this is Linux").await;
    let parent = "config.linux.cgroup_parent: \"/a/../..\" has '..' in it";
    bad(|c| c.linux.as_mut().unwrap().cgroup_parent = "/a/../..".into(), parent).await;
    fn untrusted(config: &mut PodSandboxConfig) {
        config.annotations.insert("io.kubernetes.cri.untrusted-workload".into(), "true".into());
    }
    bad(untrusted, "runtime_handler: \"untrusted\" is not configured; there are runc").await;
    let message = "config.annotations[io.kubernetes.cri.untrusted-workload]: beside runtime_handler \"runc\"";
    bench.bad_pod(RunPodSandboxRequest { runtime_handler: "runc".into(), ..pod(untrusted) }, message).await;
    let seeing: fn(&mut PodSandboxConfig) = |c| {
        untrusted(c);
        security(c).namespace_options.as_mut().unwrap().network = 2;
    };
    let message = "config.annotations[io.kubernetes.cri.untrusted-workload]: the pod has a namespace of the node's";
    bad(seeing, message).await;
    let handler = RunPodSandboxRequest { runtime_handler: "gone".into(), ..pod(|_| ()) };
    bench.bad_pod(handler, "runtime_handler: \"gone\" is not configured; there are runc").await;
}

#[tokio::test]
async fn ports() {
    let bench = Bench::new().await;
    let bad = async |port: PortMapping, message: &str| {
        bench.bad_pod(pod(|c| c.port_mappings = vec![port]), &format!("config.port_mappings[0].{message}")).await;
    };
    let port = |host_port, container_port| PortMapping { host_port, container_port, ..Default::default() };
    bad(PortMapping { protocol: 9, ..port(1, 1) }, "protocol: 9 means nothing").await;
    bad(port(70_000, 80), "host_port: 70000 is not a port").await;
    bad(port(1, -1), "container_port: -1 is not a port").await;
    bad(port(80, 0), "container_port: 0 is not a port").await;
    bad(PortMapping { host_ip: "here".into(), ..port(1, 1) }, "host_ip: \"here\" is not an address").await;
}

#[tokio::test]
async fn pods_security() {
    let bench = Bench::new().await;
    let bad = async |change: fn(&mut LinuxSandboxSecurityContext), message: &str| {
        let request = pod(|config| change(security(config)));
        bench.bad_pod(request, &format!("config.linux.security_context.{message}")).await;
    };
    fn options(context: &mut LinuxSandboxSecurityContext) -> &mut NamespaceOption {
        context.namespace_options.as_mut().unwrap()
    }
    bad(|s| options(s).network = 7, "namespace_options.network: 7 means nothing").await;
    bad(|s| options(s).network = 1, "namespace_options.network: neither the pod's nor the node's").await;
    bad(|s| options(s).ipc = 3, "namespace_options.ipc: neither the pod's nor the node's").await;
    bad(|s| options(s).pid = 3, "namespace_options.pid: a pod has no target").await;
    let user = "namespace_options.userns_options";
    let none: fn(&mut LinuxSandboxSecurityContext) =
        |s| options(s).userns_options = user_namespace(NamespaceMode::Pod, &[]);
    bad(none, &format!("{user}.uids: not exactly one mapping")).await;
    let two: fn(&mut LinuxSandboxSecurityContext) =
        |s| options(s).userns_options = user_namespace(NamespaceMode::Pod, &[(1, 0, 1), (2, 1, 1)]);
    bad(two, &format!("{user}.uids: not exactly one mapping")).await;
    let one: fn(&mut LinuxSandboxSecurityContext) =
        |s| options(s).userns_options = user_namespace(NamespaceMode::Pod, &[(1, 1, 1)]);
    bad(one, &format!("{user}.uids: does not map id 0")).await;
    let past: fn(&mut LinuxSandboxSecurityContext) =
        |s| options(s).userns_options = user_namespace(NamespaceMode::Pod, &[(u32::MAX, 0, 2)]);
    bad(past, &format!("{user}.uids: past the last id")).await;
    let own: fn(&mut LinuxSandboxSecurityContext) =
        |s| options(s).userns_options = user_namespace(NamespaceMode::Container, &[(1, 0, 1)]);
    bad(own, &format!("{user}.mode: neither the pod's nor the node's")).await;
    let node: fn(&mut LinuxSandboxSecurityContext) =
        |s| options(s).userns_options = user_namespace(NamespaceMode::Node, &[(1, 0, 1)]);
    bad(node, &format!("{user}: the node's user namespace has no mappings")).await;
    bad(|s| s.run_as_user = Some(Int64Value { value: -1 }), "run_as_user: -1 is not an id").await;
    bad(|s| s.run_as_group = Some(Int64Value { value: 1 }), "run_as_group: a group without a user").await;
    bad(|s| s.supplemental_groups = vec![1, 1 << 40], "supplemental_groups[1]: 1099511627776 is not an id").await;
    bad(|s| s.supplemental_groups_policy = 9, "supplemental_groups_policy: 9 means nothing").await;
    bad(|s| s.seccomp = profile(9), "seccomp.profile_type: 9 means nothing").await;
    bad(|s| s.seccomp = profile(2), "seccomp.localhost_ref: empty").await;
    let level: fn(&mut LinuxSandboxSecurityContext) =
        |s| s.selinux_options = Some(SeLinuxOption { level: "s0:x".into(), ..Default::default() });
    bad(level, "selinux_options.level: \"s0:x\" is not a level such as s0:c1,c2").await;
    let kind: fn(&mut LinuxSandboxSecurityContext) =
        |s| s.selinux_options = Some(SeLinuxOption { r#type: "a:b".into(), ..Default::default() });
    bad(kind, "selinux_options.type: \"a:b\" is not a part of a label").await;
}

#[tokio::test]
async fn containers() {
    let bench = Bench::new().await;
    let bad = async |change: fn(&mut ContainerConfig), message: &str| {
        bench.bad_container(container(change), &format!("config.{message}")).await;
    };
    bench.bad_container(CreateContainerRequest::default(), "config: missing").await;
    bad(|c| c.metadata = None, "metadata: missing").await;
    bad(|c| c.metadata.as_mut().unwrap().name.clear(), "metadata.name: empty").await;
    bad(|c| c.image = None, "image: missing").await;
    bad(|c| c.image.as_mut().unwrap().image.clear(), "image.image: empty").await;
    bad(|c| c.working_dir = "tmp".into(), "working_dir: \"tmp\" is not an absolute path").await;
    bad(|c| c.command = vec!["a\0".into()], "command: a NUL in a word").await;
    bad(|c| c.envs = vec![KeyValue { key: "A=B".into(), value: vec![] }], "envs[0]: not a variable").await;
    bad(|c| c.log_path = "../../etc/x".into(), "log_path: \"../../etc/x\" has '..' in it").await;
    bad(|c| c.stop_signal = 999, "stop_signal: 999 means nothing").await;
    bad(|c| c.mounts = vec![mount("", "/a")], "mounts[0].container_path: empty").await;
    bad(|c| c.mounts = vec![mount("/a", "")], "mounts[0].host_path: empty").await;
    bad(|c| c.mounts = vec![mount("/a", "b")], "mounts[0].host_path: \"b\" is not an absolute path").await;
    bad(|c| c.mounts = vec![mount("/a", "/b\0")], "mounts[0].host_path: a NUL in a path").await;
    let way = Mount { propagation: 8, ..mount("/a", "/b") };
    bench.bad_container(container(|c| c.mounts = vec![way]), "config.mounts[0].propagation: 8 means nothing").await;
    let recursive = Mount { recursive_read_only: true, ..mount("/a", "/b") };
    let message = "config.mounts[0].recursive_read_only: without readonly";
    bench.bad_container(container(|c| c.mounts = vec![recursive]), message).await;
    let image = Mount { image: Some(ImageSpec::default()), ..mount("/a", "") };
    bench.bad_container(container(|c| c.mounts = vec![image]), "config.mounts[0].image.image: empty").await;
    let image = |readonly| Mount {
        image: Some(ImageSpec { image: "i".into(), ..Default::default() }),
        readonly,
        ..mount("/a", "")
    };
    let message = "config.mounts[0].readonly: an image is mounted read-only";
    bench.bad_container(container(|c| c.mounts = vec![image(false)]), message).await;
    let way = Mount { image_sub_path: "a/../../b".into(), ..image(true) };
    let message = "config.mounts[0].image_sub_path: \"a/../../b\" has '..' in it";
    bench.bad_container(container(|c| c.mounts = vec![way]), message).await;
    let ids = |length| vec![IdMapping { host_id: 1, container_id: 0, length }];
    let half = Mount { uid_mappings: ids(1), ..mount("/a", "/b") };
    let message = "config.mounts[0].gidMappings: users and groups are mapped together or not at all";
    bench.bad_container(container(|c| c.mounts = vec![half]), message).await;
    let none = Mount { uid_mappings: ids(0), gid_mappings: ids(1), ..mount("/a", "/b") };
    let message = "config.mounts[0].uidMappings: an empty range";
    bench.bad_container(container(|c| c.mounts = vec![none]), message).await;
    let two = Mount { uid_mappings: [ids(1), ids(1)].concat(), gid_mappings: ids(1), ..mount("/a", "/b") };
    let message = "config.mounts[0].uidMappings: more than one mapping";
    bench.bad_container(container(|c| c.mounts = vec![two]), message).await;
    let thing = |name: &str| vec![CdiDevice { name: name.into() }];
    let message = "config.CDI_devices[0].name: CDI device \"gpu\": not vendor/class=device";
    bench.bad_container(container(|c| c.cdi_devices = thing("gpu")), message).await;
    let named = container(|c| drop(c.annotations.insert("cdi.k8s.io/a".into(), "v/c=".into())));
    let message = "CDI device \"v/c=\": the device is not made of letters, digits, _ - . and :";
    bench.bad_container(named, message).await;
    let device = Device { host_path: "/dev/null".into(), container_path: "/dev/x".into(), permissions: "rx".into() };
    let message = "config.devices[0].permissions: \"rx\" is not made of r, w and m";
    bench.bad_container(container(|c| c.devices = vec![device]), message).await;
}

#[tokio::test]
async fn containers_rights_and_limits() {
    let bench = Bench::new().await;
    let bad = async |change: fn(&mut ContainerConfig), message: &str| {
        bench.bad_container(container(change), &format!("config.linux.{message}")).await;
    };
    let id = |value| Some(Int64Value { value });
    let both: fn(&mut ContainerConfig) = |c| {
        let rights = rights(c);
        (rights.run_as_user, rights.run_as_username) = (Some(Int64Value { value: 1 }), "ann".into());
    };
    bad(both, "security_context.run_as_username: beside run_as_user").await;
    let request = container(|c| rights(c).run_as_user = id(1 << 33));
    bench.bad_container(request, "config.linux.security_context.run_as_user: 8589934592 is not an id").await;
    bad(|c| rights(c).run_as_username = "a:b".into(), "security_context.run_as_username: not a name").await;
    let masked = "security_context.masked_paths[0]: \"proc\" is not an absolute path";
    bad(|c| rights(c).masked_paths = vec!["proc".into()], masked).await;
    let target: fn(&mut ContainerConfig) = |c| rights(c).namespace_options.as_mut().unwrap().pid = 3;
    bad(target, "security_context.namespace_options.target_id: empty").await;
    bad(|c| limits(c).cpu_shares = -2, "resources.cpu_shares: -2 is negative").await;
    bad(|c| limits(c).oom_score_adj = 1001, "resources.oom_score_adj: 1001 is not within -1000 and 1000").await;
    bad(|c| limits(c).cpuset_cpus = "a".into(), "resources.cpuset_cpus: \"a\" is not a list of numbers").await;
    let file: fn(&mut ContainerConfig) = |c| drop(limits(c).unified.insert("../x.y".into(), "1".into()));
    bad(file, "resources.unified: \"../x.y\" is not a file of a cgroup").await;
}

#[tokio::test]
async fn what_is_not_there() {
    let bench = Bench::new().await;
    let rpc = bench.runtime();
    let missing = "pod sandbox \"p\" does not exist";
    let answer = rpc.create_container(Request::new(container(|_| ()))).await;
    bench.check(answer, Code::NotFound, missing);
    let id = || "c".to_owned();
    let gone = "container \"c\" does not exist";
    let answer = rpc.start_container(Request::new(StartContainerRequest { container_id: id() })).await;
    bench.check(answer, Code::NotFound, gone);
    let exec = ExecSyncRequest { container_id: id(), cmd: vec!["true".into()], timeout: 1 };
    bench.check(rpc.exec_sync(Request::new(exec)).await, Code::NotFound, gone);
    let answer = rpc.exec_sync(Request::new(ExecSyncRequest::default())).await;
    bench.check(answer, Code::InvalidArgument, "container_id: empty");
    let limits = LinuxContainerResources { cpu_period: -1, ..Default::default() };
    let update = UpdateContainerResourcesRequest { container_id: id(), linux: Some(limits), ..Default::default() };
    let answer = rpc.update_container_resources(Request::new(update)).await;
    bench.check(answer, Code::InvalidArgument, "linux.cpu_period: -1 is negative");
    let update = UpdatePodSandboxResourcesRequest { pod_sandbox_id: "p".into(), ..Default::default() };
    bench.check(rpc.update_pod_sandbox_resources(Request::new(update)).await, Code::NotFound, missing);
    // Ending and removing what is not there is done already.
    rpc.stop_container(Request::new(StopContainerRequest { container_id: id(), timeout: 1 })).await.unwrap();
    rpc.remove_container(Request::new(RemoveContainerRequest { container_id: id() })).await.unwrap();
    rpc.stop_pod_sandbox(Request::new(StopPodSandboxRequest { pod_sandbox_id: id() })).await.unwrap();
    rpc.remove_pod_sandbox(Request::new(RemovePodSandboxRequest { pod_sandbox_id: id() })).await.unwrap();
    assert_eq!(bench.fake.changes(), 0);
}

#[tokio::test]
async fn images() {
    let bench = Bench::new().await;
    let rpc = kevel_cri_server::ImageRpc::new(bench.server.clone());
    let spec = |image: &str| Some(ImageSpec { image: image.into(), ..Default::default() });
    let pull = |image| PullImageRequest { image, ..Default::default() };
    bench.check(rpc.pull_image(Request::new(pull(None))).await, Code::InvalidArgument, "image.image: empty");
    let answer = rpc.pull_image(Request::new(pull(spec("a:b:c")))).await;
    let message = "image.image: image reference \"a:b:c\": tag must be at most 128 letters, digits, '_', '.' or '-'";
    bench.check(answer, Code::InvalidArgument, message);
    let handler = Some(ImageSpec { runtime_handler: "gone".into(), ..spec("a").unwrap() });
    let message = "runtime_handler: \"gone\" is not configured; there are runc";
    bench.check(rpc.pull_image(Request::new(pull(handler))).await, Code::InvalidArgument, message);
    let auth = Some(AuthConfig { auth: "%".into(), ..Default::default() });
    let answer = rpc.pull_image(Request::new(PullImageRequest { auth, ..pull(spec("a")) })).await;
    bench.check(answer, Code::InvalidArgument, "auth.auth: not base64 of user:password");
    let answer = rpc.remove_image(Request::new(RemoveImageRequest { image: None })).await;
    bench.check(answer, Code::InvalidArgument, "image.image: empty");
    rpc.remove_image(Request::new(RemoveImageRequest { image: spec("gone") })).await.unwrap();
    let status = rpc.image_status(Request::new(ImageStatusRequest { image: spec("gone"), verbose: true })).await;
    assert_eq!(status.unwrap().into_inner(), ImageStatusResponse::default());
    let _ = (runtime_service(bench.server.clone()), image_service(bench.server.clone()));
    assert_eq!(bench.fake.changes(), 0);
}
