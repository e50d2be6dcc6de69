//! Features of pods and containers, with real shims and both Debian's runc and a newer one: user namespaces, images as
//! volumes, CDI devices, changed limits, mounts that are read-only all the way down.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use kevel_e2e::{Node, NodeOptions, Registry, eventually, find, run};
use kevel_proto::runtime::v1 as cri;
use tonic::{Code, Status, transport::Channel};

type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;
type Images = cri::image_service_client::ImageServiceClient<Channel>;

/// The handler with the newer runc, which maps mounts.
const NEWER: &str = "newer";

/// The same with a snapshotter that cannot map owners.
const COPYING: &str = "copying";

struct Setup {
    registry: Registry,
    /// Volumes and CDI specs: things of the node that the daemon finds there.
    host: tempfile::TempDir,
    node: Node,
    runtime: Runtime,
    images: Images,
}

async fn setup(images: &[&str]) -> Setup {
    let registry = Registry::start(&[&["busybox", "pause"], images].concat()).unwrap();
    let host = tempfile::Builder::new().prefix("kevel-host-").tempdir().unwrap();
    let runtime = r#"plugins."io.containerd.cri.v1.runtime""#;
    let config = format!(
        r#"
[{runtime}]
cdi_spec_dirs = ["{cdi}"]
[{runtime}.containerd.runtimes.{NEWER}]
runtime_type = "io.containerd.runc.v2"
[{runtime}.containerd.runtimes.{NEWER}.options]
BinaryName = "{runc}"
[{runtime}.containerd.runtimes.{COPYING}]
runtime_type = "io.containerd.runc.v2"
snapshotter = "native"
[{runtime}.containerd.runtimes.{COPYING}.options]
BinaryName = "{runc}"
"#,
        cdi = host.path().join("cdi").display(),
        runc = find("runc-1.4").unwrap().display(),
    );
    let options = NodeOptions { config, ..registry.node_options() };
    let node = Node::start(&options).unwrap();
    // Who is nobody on the node must reach its root file system, as below /run and /var/lib.
    for dir in [node.path(""), host.path().to_owned()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let (runtime, image_client) = node.cri().await.unwrap();
    let mut setup = Setup { registry, host, node, runtime, images: image_client };
    setup.pull("busybox").await;
    setup
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Setup {
    fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        let mut config = cri::PodSandboxConfig { hostname: name.to_owned(), ..self.node.pod(name) };
        config.linux.as_mut().unwrap().security_context = Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(cri::NamespaceOption::default()),
            ..Default::default()
        });
        config
    }

    fn container(&self, name: &str) -> cri::ContainerConfig {
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(self.image("busybox")),
            command: strings(&["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]),
            log_path: format!("{name}.log"),
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(cri::NamespaceOption::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn image(&self, name: &str) -> cri::ImageSpec {
        cri::ImageSpec { image: self.registry.reference(name).to_owned(), ..Default::default() }
    }

    async fn pull(&mut self, name: &str) -> String {
        let request = cri::PullImageRequest { image: Some(self.image(name)), ..Default::default() };
        self.images.pull_image(request).await.unwrap().into_inner().image_ref
    }

    async fn try_run(&mut self, pod: &cri::PodSandboxConfig, handler: &str) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest { config: Some(pod.clone()), runtime_handler: handler.to_owned() };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    async fn try_create(&mut self, pod: &str, config: cri::ContainerConfig) -> Result<String, Status> {
        let request =
            cri::CreateContainerRequest { pod_sandbox_id: pod.to_owned(), config: Some(config), sandbox_config: None };
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    async fn start(&mut self, pod: &str, config: cri::ContainerConfig) -> String {
        let container_id = self.try_create(pod, config).await.unwrap();
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        self.runtime.start_container(request).await.unwrap();
        container_id
    }

    /// What a shell in the container prints; its exit code must be 0.
    async fn shell(&mut self, container_id: &str, script: &str) -> String {
        let (code, text) = self.try_shell(container_id, script).await;
        assert_eq!(code, 0, "{script}: {text}");
        text
    }

    async fn try_shell(&mut self, container_id: &str, script: &str) -> (i32, String) {
        let request = cri::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: strings(&["sh", "-c", script]),
            timeout: 30,
        };
        let answer = self.runtime.exec_sync(request).await.unwrap().into_inner();
        let both = [answer.stdout, answer.stderr].concat();
        (answer.exit_code, String::from_utf8(both).unwrap().trim().to_owned())
    }

    async fn status(&mut self, container_id: &str) -> cri::ContainerStatus {
        self.verbose(container_id).await.status.unwrap()
    }

    async fn verbose(&mut self, container_id: &str) -> cri::ContainerStatusResponse {
        let request = cri::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: true };
        self.runtime.container_status(request).await.unwrap().into_inner()
    }

    /// The container's first process on the host.
    async fn pid(&mut self, container_id: &str) -> u64 {
        let info: serde_json::Value = serde_json::from_str(&self.verbose(container_id).await.info["info"]).unwrap();
        info["pid"].as_u64().unwrap()
    }

    /// Ends and removes a pod, and sees that nothing is left of it.
    async fn finish(&mut self, pods: &[String]) {
        for pod in pods {
            let pod_sandbox_id = pod.clone();
            let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            self.runtime.stop_pod_sandbox(stop).await.unwrap();
            self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
        }
        self.node.remove_parent_cgroup();
        self.node.assert_no_leaks().unwrap();
    }

    /// A directory on the node with a file in it.
    fn volume(&self, name: &str) -> PathBuf {
        let path = self.host.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), name).unwrap();
        path
    }

    /// What a handler says that it can do; shims are asked after the start, so it is waited for.
    async fn features(&mut self, handler: &str) -> cri::RuntimeHandlerFeatures {
        let mut features = cri::RuntimeHandlerFeatures::default();
        eventually(&format!("handler {handler} to say what it can do"), async || {
            let status = self.runtime.status(cri::StatusRequest::default()).await.unwrap().into_inner();
            let found = status.runtime_handlers.into_iter().find(|one| one.name == handler).unwrap();
            features = found.features.unwrap();
            features.recursive_read_only_mounts
        })
        .await;
        features
    }
}

fn bind(volume: &Path, at: &str) -> cri::Mount {
    cri::Mount { container_path: at.to_owned(), host_path: volume.display().to_string(), ..Default::default() }
}

const FIRST: u32 = 1_000_000;

fn mapping() -> cri::IdMapping {
    cri::IdMapping { host_id: FIRST, container_id: 0, length: 65536 }
}

fn own_users() -> Option<cri::UserNamespace> {
    Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod as i32, uids: vec![mapping()], gids: vec![mapping()] })
}

fn pods_options(pod: &mut cri::PodSandboxConfig) -> &mut cri::NamespaceOption {
    let security = pod.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap()
}

fn options(container: &mut cri::ContainerConfig) -> &mut cri::NamespaceOption {
    let security = container.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap()
}

fn mapped(mut mount: cri::Mount) -> cri::Mount {
    (mount.uid_mappings, mount.gid_mappings) = (vec![mapping()], vec![mapping()]);
    mount
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_users_of_its_own() {
    let mut setup = setup(&["layers", "configured"]).await;
    assert!(setup.features(NEWER).await.user_namespaces);
    assert!(!setup.features("runc").await.user_namespaces, "Debian's runc maps no mounts");
    setup.pull("layers").await;
    setup.pull("configured").await;
    let mut pod = setup.pod("users");
    pods_options(&mut pod).userns_options = own_users();
    let refused = setup.try_run(&pod, "runc").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");

    let id = setup.try_run(&pod, NEWER).await.unwrap();
    let volume = setup.volume("data");
    let mut config = setup.container("app");
    options(&mut config).userns_options = own_users();
    let image = cri::Mount {
        container_path: "/image".to_owned(),
        image: Some(setup.image("layers")),
        readonly: true,
        ..Default::default()
    };
    config.mounts = vec![mapped(bind(&volume, "/data")), bind(&volume, "/plain"), mapped(image)];
    let app = setup.start(&id, config).await;

    // Root inside is somebody else outside.
    assert_eq!(
        setup.shell(&app, "id -u; cat /proc/self/uid_map").await.split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "1000000", "65536"]
    );
    let pid = setup.pid(&app).await;
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), FIRST);
    // The root file system, the mapped volume and the image belong to the pod's root; a plain volume does not.
    let owners = "stat -c %u /bin/busybox /data/file /image/data/kept /plain/file";
    assert_eq!(setup.shell(&app, owners).await.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "65534"]);
    setup.shell(&app, "echo x > /data/new; echo y > /etc/new; mkdir /root/z").await;
    assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), 0, "what is written to a mapped volume is root's");
    assert_ne!(setup.try_shell(&app, "echo x > /plain/no").await.0, 0);
    // Its files, its streams and its network are usable.
    setup
        .shell(&app, "echo hello > /dev/stdout; grep -q users /etc/hostname; ip -4 addr show eth0; ls /sys/class/net")
        .await;
    // Volumes that the image declares belong to it, too; and another user than root is mapped as well.
    let mut config = setup.container("other");
    config.image = Some(setup.image("configured"));
    options(&mut config).userns_options = own_users();
    let other = setup.start(&id, config).await;
    assert_eq!(
        setup.shell(&other, "id -u; stat -c %u /data; touch /data 2>&1 || true").await.lines().next(),
        Some("1000")
    );
    assert_eq!(setup.shell(&other, "stat -c %u /data").await, "0");

    let mut config = setup.container("differs");
    options(&mut config).userns_options =
        Some(cri::UserNamespace { mode: cri::NamespaceMode::Node as i32, ..Default::default() });
    let refused = setup.try_create(&id, config).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    setup.finish(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_users_of_its_own_on_the_nodes_network() {
    let mut setup = setup(&[]).await;
    let mut pod = setup.pod("host");
    pods_options(&mut pod).userns_options = own_users();
    pods_options(&mut pod).network = cri::NamespaceMode::Node as i32;
    let status = setup.runtime.status(cri::StatusRequest::default()).await.unwrap().into_inner();
    assert!(status.features.unwrap().user_namespaces_host_network);
    let id = setup.try_run(&pod, NEWER).await.unwrap();
    let mut config = setup.container("app");
    *options(&mut config) = pods_options(&mut pod).clone();
    let app = setup.start(&id, config).await;
    assert_eq!(setup.shell(&app, "id -u; cat /proc/self/uid_map").await.split_whitespace().nth(2), Some("1000000"));
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(setup.shell(&app, "readlink /proc/self/ns/net").await, own.display().to_string());
    setup.finish(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_copied_where_owners_cannot_be_mapped() {
    let mut setup = setup(&[]).await;
    let mut pod = setup.pod("copies");
    pods_options(&mut pod).userns_options = own_users();
    let id = setup.try_run(&pod, COPYING).await.unwrap();
    let mut apps = Vec::new();
    for name in ["one", "two"] {
        let mut config = setup.container(name);
        options(&mut config).userns_options = own_users();
        apps.push(setup.start(&id, config).await);
    }
    for app in &apps {
        let owners = "stat -c %u /bin/busybox /home/kevel; echo x > /etc/new; awk '{print $2}' /proc/self/uid_map";
        let seen = setup.shell(app, owners).await;
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["0", "1000", FIRST.to_string().as_str()]);
    }
    // One copy serves both, and nothing but they keep it.
    let list = setup.node.ctr(&["-n", "k8s.io", "snapshots", "--snapshotter", "native", "ls"]).unwrap();
    let copies: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let copies: Vec<_> = copies.into_iter().filter(|name| name.contains("-remapped-")).collect();
    assert_eq!(copies.len(), 2, "of the pause image and of the container's: {list}");
    for copy in copies {
        assert!(copy.ends_with("-remapped-1000000-65536-1000000-65536"), "{list}");
        let info = setup.node.ctr(&["-n", "k8s.io", "snapshots", "--snapshotter", "native", "info", copy]).unwrap();
        assert!(!info.contains("gc.root"), "{info}");
    }
    setup.finish(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_volumes() {
    let mut setup = setup(&["layers"]).await;
    let image_id = setup.pull("layers").await;
    let pod = setup.pod("volumes");
    let id = setup.try_run(&pod, "").await.unwrap();
    let volume = |spec: cri::ImageSpec, sub: &str, at: &str| cri::Mount {
        container_path: at.to_owned(),
        image: Some(spec),
        image_sub_path: sub.to_owned(),
        readonly: true,
        ..Default::default()
    };
    let spec =
        || cri::ImageSpec { image: image_id.clone(), user_specified_image: "layers".to_owned(), ..Default::default() };
    let mut config = setup.container("app");
    config.mounts = vec![volume(spec(), "", "/whole"), volume(spec(), "data", "/part")];
    let app = setup.start(&id, config.clone()).await;
    assert_eq!(setup.shell(&app, "cat /whole/data/changed /part/changed; ls /whole/was-dir").await, "33/whole/was-dir");
    assert_ne!(setup.try_shell(&app, "echo x > /part/new").await.0, 0, "read-only");
    let mounts = setup.status(&app).await.mounts;
    let refs: Vec<_> = mounts.iter().map(|mount| mount.image.as_ref().unwrap().image_ref.clone()).collect();
    assert_eq!(refs, [image_id.clone(), image_id.clone()]);

    // One snapshot serves the pod, also after the daemon was killed.
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    (setup.runtime, setup.images) = setup.node.cri().await.unwrap();
    assert_eq!(setup.status(&app).await.mounts, mounts);
    let mut config = setup.container("more");
    config.mounts = vec![volume(spec(), "/data", "/part")];
    let more = setup.start(&id, config).await;
    assert_eq!(setup.shell(&more, "cat /part/kept").await, "1");
    assert_eq!(setup.shell(&app, "cat /part/kept").await, "1");
    let list = setup.node.ctr(&["-n", "k8s.io", "snapshots", "ls"]).unwrap();
    assert_eq!(list.lines().filter(|line| line.contains("image-volumes")).count(), 1, "{list}");

    // What cannot be is refused as a failure of the volume and leaves nothing.
    let cases = [
        (volume(spec(), "nowhere", "/v"), Code::NotFound, "is not in the image"),
        (volume(spec(), "data/kept", "/v"), Code::InvalidArgument, "is not a directory"),
        (volume(spec(), "data/dangling", "/v"), Code::InvalidArgument, "leads out of the image"),
        (
            volume(cri::ImageSpec { image: "gone:v1".to_owned(), ..Default::default() }, "", "/v"),
            Code::NotFound,
            "gone:v1",
        ),
    ];
    for (mount, code, want) in cases {
        let mut config = setup.container("bad");
        config.mounts = vec![mount];
        let refused = setup.try_create(&id, config).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(
            refused.message().contains("ImageVolumeMountFailed") && refused.message().contains(want),
            "{refused:?}"
        );
    }
    setup.finish(&[id]).await;
    let list = setup.node.ctr(&["-n", "k8s.io", "snapshots", "ls"]).unwrap();
    assert!(!list.contains("image-volumes"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cdi_devices_are_injected() {
    let mut setup = setup(&[]).await;
    let (specs, library) = (setup.host.path().join("cdi"), setup.volume("library"));
    fs::create_dir(&specs).unwrap();
    // A device that no driver is behind and that no runtime allows by default.
    let device = setup.host.path().join("thing");
    run(Path::new("/bin/mknod"), &[device.to_str().unwrap(), "c", "240", "77"]).unwrap().ok().unwrap();
    let text = format!(
        "cdiVersion: \"0.6.0\"\nkind: vendor.example/thing\ncontainerEdits:\n  env: [THINGS=all]\ndevices:\n- name: one\n  containerEdits:\n    \
         env: [THING=1]\n    deviceNodes:\n    - {{path: /dev/thing, hostPath: {device}, permissions: r}}\n    mounts:\n    - {{hostPath: {library}, \
         containerPath: /usr/lib/thing, options: [ro, nosuid, nodev, bind]}}\n    additionalGids: [777]\n",
        library = library.display(),
        device = device.display(),
    );
    fs::write(specs.join("vendor.yaml"), text).unwrap();
    let other = serde_json::json!({
        "cdiVersion": "0.5.0",
        "kind": "vendor.example/other",
        "devices": [{ "name": "two", "containerEdits": { "env": ["OTHER=2"] } }],
    });
    fs::write(specs.join("other.json"), other.to_string()).unwrap();
    let id = setup.try_run(&setup.pod("devices"), "").await.unwrap();
    let mut config = setup.container("app");
    config.cdi_devices = vec![cri::CdiDevice { name: "vendor.example/thing=one".to_owned() }];
    config.annotations = BTreeMap::from([("cdi.k8s.io/x".to_owned(), "vendor.example/other=two".to_owned())]);
    let app = setup.start(&id, config).await;
    let seen =
        setup.shell(&app, "echo $THINGS $THING $OTHER; cat /usr/lib/thing/file; stat -c %t:%T /dev/thing; id -G").await;
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..2], ["all 1 2", "libraryf0:4d"], "{seen}");
    assert!(lines[2].split(' ').any(|group| group == "777"), "{seen}");
    let (_, read) = setup.try_shell(&app, ": < /dev/thing").await;
    assert!(read.contains("No such device"), "the devices cgroup lets it be read: {read}");
    let (_, write) = setup.try_shell(&app, ": > /dev/thing").await;
    assert!(write.contains("Operation not permitted"), "and not written: {write}");
    assert_ne!(setup.try_shell(&app, "echo x > /usr/lib/thing/new").await.0, 0, "read-only");

    let mut config = setup.container("gone");
    config.cdi_devices = vec![cri::CdiDevice { name: "vendor.example/thing=nine".to_owned() }];
    let refused = setup.try_create(&id, config.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("CDI device vendor.example/thing=nine: unknown"), "{refused:?}");
    config.cdi_devices[0].name = "nonsense".to_owned();
    assert_eq!(setup.try_create(&id, config).await.unwrap_err().code(), Code::InvalidArgument);
    setup.finish(&[id]).await;
}

/// The file of a cgroup of the process, by the controller's name on version 1.
fn cgroup_file(pid: u64, controller: &str, file: &str) -> String {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut groups = table.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
    let found = groups.find(|[_, names, _]: &[&str; 3]| names.split(',').any(|name| name == controller));
    let path = match found {
        Some([_, names, path]) => {
            let mounted = ["/sys/fs/cgroup".to_owned() + "/" + names, format!("/sys/fs/cgroup/{controller}")];
            format!("{}{path}/{file}", mounted.iter().find(|dir| Path::new(dir).is_dir()).unwrap())
        }
        None => format!("/sys/fs/cgroup{}/{file}", table.trim().trim_start_matches("0::")),
    };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_while_a_container_runs() {
    let mut setup = setup(&[]).await;
    let id = setup.try_run(&setup.pod("resize"), "").await.unwrap();
    let mut config = setup.container("app");
    let limits = |quota, memory| cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: quota,
        memory_limit_in_bytes: memory,
        ..Default::default()
    };
    config.linux.as_mut().unwrap().resources = Some(limits(20_000, 64 << 20));
    let app = setup.start(&id, config).await;
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let seen = |pid| match unified {
        true => (cgroup_file(pid, "cpu", "cpu.max"), cgroup_file(pid, "memory", "memory.max")),
        false => {
            let quota = cgroup_file(pid, "cpu", "cpu.cfs_quota_us");
            (format!("{quota} 100000"), cgroup_file(pid, "memory", "memory.limit_in_bytes"))
        }
    };
    let pid = setup.pid(&app).await;
    assert_eq!(seen(pid), ("20000 100000".to_owned(), (64 << 20).to_string()));
    let change = |linux| cri::UpdateContainerResourcesRequest {
        container_id: app.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    setup.runtime.update_container_resources(change(limits(50_000, 96 << 20))).await.unwrap();
    assert_eq!(seen(pid), ("50000 100000".to_owned(), (96 << 20).to_string()));
    let told = |status: cri::ContainerStatus| status.resources.unwrap().linux.unwrap();
    assert_eq!(told(setup.status(&app).await), limits(50_000, 96 << 20));
    // What is not said stays, a refused change changes nothing, and a restart remembers.
    let shares = cri::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
    setup.runtime.update_container_resources(change(shares)).await.unwrap();
    let bad = cri::LinuxContainerResources { cpuset_cpus: "9999".to_owned(), ..Default::default() };
    setup.runtime.update_container_resources(change(bad)).await.unwrap_err();
    let want = cri::LinuxContainerResources { cpu_shares: 512, ..limits(50_000, 96 << 20) };
    assert_eq!(told(setup.status(&app).await), want);
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    (setup.runtime, setup.images) = setup.node.cri().await.unwrap();
    assert_eq!(told(setup.status(&app).await), want);
    assert_eq!(seen(pid).1, (96 << 20).to_string());

    // The pod as a whole: noted, and no business of a pause container's.
    let update = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.clone(),
        overhead: None,
        resources: Some(limits(70_000, 128 << 20)),
    };
    setup.runtime.update_pod_sandbox_resources(update.clone()).await.unwrap();
    let bad = cri::LinuxContainerResources { cpu_period: -1, ..Default::default() };
    let refused = cri::UpdatePodSandboxResourcesRequest { resources: Some(bad), ..update };
    let refused = setup.runtime.update_pod_sandbox_resources(refused).await.unwrap_err();
    assert_eq!(refused.message(), "resources.cpu_period: -1 is negative");
    setup.finish(&[id]).await;
}

/// A mount below a volume, gone when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Self {
        run(Path::new("/bin/mount"), &["-t", "tmpfs", "tmpfs", at.to_str().unwrap()]).unwrap().ok().unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run(Path::new("/bin/umount"), &["-l", self.0.to_str().unwrap()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_as_asked() {
    let mut setup = setup(&[]).await;
    assert!(setup.features("runc").await.recursive_read_only_mounts);
    let volume = setup.volume("tree");
    let below = volume.join("below");
    fs::create_dir(&below).unwrap();
    let _below = Tmpfs::mount(&below);
    let id = setup.try_run(&setup.pod("mounts"), "").await.unwrap();
    let mut config = setup.container("app");
    let deep = cri::Mount { readonly: true, recursive_read_only: true, ..bind(&volume, "/deep") };
    let flat = cri::Mount { readonly: true, ..bind(&volume, "/flat") };
    let strict = cri::Mount { mount_options: strings(&["noexec", "nodev", "nosuid"]), ..bind(&volume, "/strict") };
    config.mounts = vec![deep, flat, strict];
    let app = setup.start(&id, config).await;
    for (script, works) in [
        ("echo x > /deep/new", false),
        ("echo x > /deep/below/new", false),
        ("echo x > /flat/new", false),
        ("echo x > /flat/below/new", true),
        ("cp /bin/busybox /strict/true && /strict/true", false),
        ("grep ' /strict ' /proc/self/mounts | grep noexec | grep nodev | grep nosuid", true),
    ] {
        let (code, said) = setup.try_shell(&app, script).await;
        assert_eq!(code == 0, works, "{script}: {said}");
    }
    let told = setup.status(&app).await.mounts;
    assert!(told[0].recursive_read_only && told[2].mount_options == strings(&["noexec", "nodev", "nosuid"]));
    let mut config = setup.container("bad");
    config.mounts = vec![cri::Mount { mount_options: strings(&["suid"]), ..bind(&volume, "/v") }];
    let refused = setup.try_create(&id, config).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    setup.finish(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_nobody_trusts_need_their_handler() {
    let mut setup = setup(&[]).await;
    let mut pod = setup.pod("stranger");
    pod.annotations.insert("io.kubernetes.cri.untrusted-workload".to_owned(), "true".to_owned());
    let refused = setup.try_run(&pod, "").await.unwrap_err();
    assert!(refused.message().contains("\"untrusted\" is not configured"), "{refused:?}");
    let refused = setup.try_run(&pod, NEWER).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    setup.node.assert_no_leaks().unwrap();
}
