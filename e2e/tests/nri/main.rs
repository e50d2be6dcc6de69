//! NRI with plugins on the Go module's own stub: hooks and their order, adjustments that containers see, updates,
//! refusals, validation, plugins that are slow, die and come back, and plugins that the daemon starts.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use kevel_e2e::{Node, NodeOptions, Registry, find, until};
use kevel_proto::runtime::v1 as cri;
use serde_json::{Value, json};
use tonic::{Status, transport::Channel};

type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;

struct Setup {
    registry: Registry,
    node: Node,
    runtime: Runtime,
    plugins: Vec<Child>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        for plugin in &mut self.plugins {
            let _ = plugin.kill();
            let _ = plugin.wait();
        }
    }
}

async fn setup(nri: &str) -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let options = NodeOptions {
        hosts_dir: registry.hosts_dir().to_owned(),
        sandbox_image: registry.reference("pause").to_owned(),
        nri: nri.to_owned(),
        ..NodeOptions::default()
    };
    let node = Node::start(&options).unwrap();
    let (runtime, mut images) = node.cri().await.unwrap();
    let image = cri::ImageSpec { image: registry.reference("busybox").to_owned(), ..Default::default() };
    images.pull_image(cri::PullImageRequest { image: Some(image), ..Default::default() }).await.unwrap();
    Setup { registry, node, runtime, plugins: Vec::new() }
}

impl Setup {
    fn log(&self, plugin: &str) -> PathBuf {
        self.node.path(&format!("{plugin}.jsonl"))
    }

    /// Starts a plugin that connects, and waits until it is ready.
    fn plugin(&mut self, index: &str, name: &str, script: Value) {
        let before = self.ready(index, name);
        self.spawn(index, name, script);
        until("the plugin to be ready", || (self.ready(index, name) > before).then_some(())).unwrap();
    }

    fn spawn(&mut self, index: &str, name: &str, script: Value) {
        let mut all = json!({
            "Socket": self.node.path("nri.sock"), "Name": name, "Index": index, "Log": self.log(name),
        });
        all.as_object_mut().unwrap().extend(script.as_object().unwrap().clone());
        let program = find("nriplugin").unwrap();
        let child = Command::new(program).arg(all.to_string()).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        self.plugins.push(child.unwrap());
    }

    /// How often a plugin became ready.
    fn ready(&self, index: &str, name: &str) -> usize {
        let log = self.node.log();
        let lines = log.lines().filter(|line| line.contains("an NRI plugin is ready"));
        lines.filter(|line| line.contains(&format!("{index}-{name}"))).count()
    }

    fn events(&self, plugin: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.log(plugin)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Events by name and by what they are about.
    fn told(&self, plugin: &str) -> Vec<String> {
        let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let about = |event: &Value| match word(event, "Container") {
            container if container.is_empty() => word(event, "Pod"),
            container => container,
        };
        let events = self.events(plugin);
        events.iter().map(|event| format!("{} {}", word(event, "Event"), about(event)).trim().to_owned()).collect()
    }

    fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        let metadata = cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        };
        cri::PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: self.node.path("logs").display().to_string(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.node.mark()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    async fn try_run(&mut self, pod: &cri::PodSandboxConfig) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    async fn run(&mut self, pod: &cri::PodSandboxConfig) -> String {
        self.try_run(pod).await.unwrap()
    }

    async fn try_create(&mut self, id: &str, pod: &cri::PodSandboxConfig, name: &str) -> Result<String, Status> {
        let request = self.creation(id, pod, name);
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    fn creation(&self, id: &str, pod: &cri::PodSandboxConfig, name: &str) -> cri::CreateContainerRequest {
        let image = cri::ImageSpec { image: self.registry.reference("busybox").to_owned(), ..Default::default() };
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(image),
            command: ["sleep", "1000"].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        cri::CreateContainerRequest {
            pod_sandbox_id: id.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        }
    }

    async fn start(&mut self, id: &str, pod: &cri::PodSandboxConfig, name: &str) -> String {
        let container_id = self.try_create(id, pod, name).await.unwrap();
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        self.runtime.start_container(request).await.unwrap();
        container_id
    }

    async fn exec(&mut self, container_id: &str, script: &str) -> String {
        let request = cri::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: 30,
        };
        let said = self.runtime.exec_sync(request).await.unwrap().into_inner();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    async fn update(&mut self, container_id: &str, memory: i64) {
        let linux = cri::LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() };
        let request = cri::UpdateContainerResourcesRequest {
            container_id: container_id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        self.runtime.update_container_resources(request).await.unwrap();
    }

    /// The memory limit that a container's status shows, and the one that its cgroup has.
    async fn memory(&mut self, container_id: &str) -> (i64, i64) {
        let request = cri::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: true };
        let answer = self.runtime.container_status(request).await.unwrap().into_inner();
        let shown = answer.status.unwrap().resources.unwrap().linux.unwrap().memory_limit_in_bytes;
        let info: Value = serde_json::from_str(&answer.info["info"]).unwrap();
        let group = info["runtimeSpec"]["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
        let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
        let files = ["memory.limit_in_bytes", "memory.max"];
        let limit = roots
            .iter()
            .zip(files)
            .find_map(|(root, file)| fs::read_to_string(format!("{root}{group}/{file}")).ok()?.trim().parse().ok());
        (shown, limit.unwrap_or_default())
    }

    async fn stop_and_remove(&mut self, container_id: &str) {
        let stop = cri::StopContainerRequest { container_id: container_id.to_owned(), timeout: 0 };
        self.runtime.stop_container(stop).await.unwrap();
        let remove = cri::RemoveContainerRequest { container_id: container_id.to_owned() };
        self.runtime.remove_container(remove).await.unwrap();
    }

    async fn remove_pod(&mut self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.runtime.stop_pod_sandbox(stop).await.unwrap();
        self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
    }

    async fn lists(&mut self) -> (usize, usize) {
        let pods = self.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner();
        let containers = self.runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap();
        (pods.items.len(), containers.into_inner().containers.len())
    }

    fn clean(&mut self) {
        for mut plugin in self.plugins.drain(..) {
            plugin.kill().unwrap();
            plugin.wait().unwrap();
        }
        self.node.remove_parent_cgroup();
        self.node.assert_no_leaks().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_told_of_a_whole_life_in_order_and_adjust_a_container() {
    let mut setup = setup("").await;
    let shared = setup.node.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "from the plugin").unwrap();
    let script = json!({
        "Env": { "ADDED": "yes" },
        "Annotations": { "example.test/added": "yes" },
        "Mounts": [{
            "destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "ro"],
        }],
        "Devices": [{ "path": "/dev/added", "type": "c", "major": 1, "minor": 3 }],
        "Rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 222, "soft": 111 }],
        "MemoryLimit": 48 << 20,
        "OomScoreAdj": 901,
    });
    setup.plugin("10", "first", script);
    setup.plugin("20", "second", json!({ "Env": { "MORE": "too" } }));
    let pod = setup.pod("life");
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "main").await;

    assert_eq!(
        setup.exec(&container, "echo $ADDED $MORE; cat /shared/file; ulimit -n").await,
        "yes too\nfrom the plugin111"
    );
    assert_eq!(
        setup.exec(&container, "touch /shared/x || echo ro; echo hi > /dev/added && echo written").await,
        "ro\nwritten"
    );
    assert_eq!(setup.memory(&container).await.1, 48 << 20);
    let request = cri::ContainerStatusRequest { container_id: container.clone(), verbose: true };
    let info = setup.runtime.container_status(request).await.unwrap().into_inner().info;
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    assert_eq!(info["runtimeSpec"]["annotations"]["example.test/added"], "yes");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", info["pid"])).unwrap();
    assert_eq!(score.trim(), "901");

    setup.update(&container, 32 << 20).await;
    assert_eq!(setup.memory(&container).await, (32 << 20, 32 << 20));
    setup.stop_and_remove(&container).await;
    setup.remove_pod(&id).await;
    setup.remove_pod(&id).await;
    let expected = [
        "Configure",
        "Synchronize",
        "RunPodSandbox life",
        "CreateContainer main",
        "ValidateContainerAdjustment main",
        "PostCreateContainer main",
        "StartContainer main",
        "PostStartContainer main",
        "UpdateContainer main",
        "PostUpdateContainer main",
        "StopContainer main",
        "RemoveContainer main",
        "StopPodSandbox life",
        "RemovePodSandbox life",
    ];
    assert_eq!(setup.told("first"), expected);
    assert_eq!(setup.told("second"), expected);
    let events = setup.events("second");
    assert!(events[0]["Detail"].as_str().unwrap().starts_with("kevel v"), "{}", events[0]);
    assert!(events[2]["Detail"].as_str().unwrap().starts_with("10."), "the pod's address: {}", events[2]);
    let env: Vec<String> = serde_json::from_value(events[3]["Env"].clone()).unwrap();
    assert!(env.contains(&"ADDED=yes".to_owned()), "the second plugin sees what the first did: {env:?}");
    assert_eq!(events[3]["Memory"], 48 << 20);
    assert_eq!(events[4]["Pods"], json!(["10-first", "20-second"]), "both were asked");
    assert_eq!(events[8]["Memory"], 32 << 20);
    assert_eq!((events[6]["State"].as_str(), events[7]["State"].as_str()), (Some("CREATED"), Some("RUNNING")));
    assert_eq!(events[10]["State"], "STOPPED");
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_or_a_conflict_leaves_nothing_and_a_retry_works() {
    let mut setup = setup("").await;
    let refuse = json!({ "RunPodSandbox": "bad", "CreateContainer": "bad", "StartContainer": "lazy" });
    setup.plugin("10", "strict", json!({ "Refuse": refuse, "Annotations": { "k": "1" } }));
    let bad = setup.pod("bad");
    let refused = setup.try_run(&bad).await.unwrap_err();
    assert!(refused.message().contains("10-strict refused RunPodSandbox"), "{refused}");
    assert_eq!(setup.lists().await, (0, 0));

    let pod = setup.pod("good");
    let id = setup.run(&pod).await;
    let refused = setup.try_create(&id, &pod, "bad").await.unwrap_err();
    assert!(refused.message().contains("10-strict refused CreateContainer"), "{refused}");
    assert_eq!(setup.lists().await, (1, 0));

    setup.plugin("20", "rival", json!({ "Annotations": { "k": "2" } }));
    let refused = setup.try_create(&id, &pod, "both").await.unwrap_err();
    assert!(refused.message().contains("both tried to set Annotations k"), "{refused}");
    let mut rival = setup.plugins.pop().unwrap();
    rival.kill().unwrap();
    rival.wait().unwrap();
    until("the rival to be gone", || setup.node.log().contains("an NRI plugin is gone").then_some(())).unwrap();
    let container = setup.start(&id, &pod, "both").await;
    assert_eq!(setup.exec(&container, "echo runs").await, "runs");

    // A start that is refused is a container that has ended.
    let container_id = setup.try_create(&id, &pod, "lazy").await.unwrap();
    let request = cri::StartContainerRequest { container_id: container_id.clone() };
    let refused = setup.runtime.start_container(request).await.unwrap_err();
    assert!(refused.message().contains("10-strict refused StartContainer"), "{refused}");
    let request = cri::ContainerStatusRequest { container_id, verbose: false };
    let status = setup.runtime.container_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), cri::ContainerState::ContainerExited);
    assert!(setup.told("strict").ends_with(&["StopContainer lazy".to_owned()]), "{:?}", setup.told("strict"));
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_change_updates_and_update_other_containers() {
    let mut setup = setup("").await;
    setup.plugin("10", "updater", json!({ "UpdateTo": 40 << 20, "SquashAll": 24 << 20 }));
    let pod = setup.pod("limits");
    let id = setup.run(&pod).await;
    let first = setup.start(&id, &pod, "first").await;
    setup.update(&first, 50 << 20).await;
    assert_eq!(setup.memory(&first).await, (40 << 20, 40 << 20), "the plugin's wish replaces the kubelet's");
    let second = setup.start(&id, &pod, "second").await;
    assert_eq!(setup.memory(&first).await, (24 << 20, 24 << 20), "updated when the second was created");
    assert_eq!(setup.memory(&second).await, (64 << 20, 64 << 20));
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_dead_plugins_cost_what_their_policy_says() {
    let mut setup = setup("plugin_request_timeout = \"1s\"").await;
    let slow = json!({ "CreateContainer": 5000 });
    setup.plugin("10", "skipped", json!({ "Slow": slow, "Env": { "SKIPPED": "no" } }));
    setup.plugin("20", "kept", json!({ "Slow": slow, "Keep": true, "Env": { "KEPT": "yes" } }));
    setup.plugin("30", "strict", json!({ "Slow": slow, "Keep": true, "FailPolicy": true }));
    let pod = setup.pod("slow");
    let id = setup.run(&pod).await;
    let refused = setup.try_create(&id, &pod, "one").await.unwrap_err();
    assert!(refused.message().contains("30-strict did not answer CreateContainer"), "{refused}");
    assert_eq!(setup.lists().await, (1, 0));
    until("the slow plugin to be gone", || setup.node.log().contains("an NRI plugin is gone").then_some(())).unwrap();
    // Each was slow once; the first lost its connection for it.
    let container = setup.start(&id, &pod, "two").await;
    assert_eq!(setup.exec(&container, "echo $SKIPPED$KEPT").await, "yes");

    // A plugin that is killed is gone, and what goes on needs it no more.
    for plugin in &mut setup.plugins {
        plugin.kill().unwrap();
        plugin.wait().unwrap();
    }
    let container = setup.start(&id, &pod, "three").await;
    assert_eq!(setup.exec(&container, "echo [$KEPT]").await, "[]");
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_comes_back_or_comes_late_is_told_what_is_there() {
    let mut setup = setup("").await;
    setup.plugin("10", "back", json!({ "Reconnect": true }));
    let pod = setup.pod("old");
    let id = setup.run(&pod).await;
    setup.start(&id, &pod, "here").await;
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    setup.runtime = setup.node.cri().await.unwrap().0;
    let synchronized = until("the plugin to be told again", || {
        let events = setup.events("back");
        let mut all = events.into_iter().filter(|event| event["Event"] == "Synchronize");
        all.nth(1)
    });
    let synchronized = synchronized.unwrap();
    assert_eq!((&synchronized["Pods"], &synchronized["Containers"]), (&json!(["old"]), &json!(["here"])));

    // Containers are made while a plugin joins and takes its time: it sees each exactly once.
    setup.spawn("20", "late", json!({ "Slow": { "Synchronize": 1000 } }));
    let names: Vec<String> = (0..6).map(|number| format!("new-{number}")).collect();
    let creations = names.iter().map(|name| {
        let (request, mut runtime) = (setup.creation(&id, &pod, name), setup.runtime.clone());
        tokio::spawn(async move { runtime.create_container(request).await.map(drop) })
    });
    for creation in creations.collect::<Vec<_>>() {
        creation.await.unwrap().unwrap();
    }
    until("the plugin to be ready", || (setup.ready("20", "late") > 0).then_some(())).unwrap();
    setup.start(&id, &pod, "last").await;
    let mut seen = Vec::new();
    for event in setup.events("late") {
        match event["Event"].as_str().unwrap() {
            "Synchronize" => seen.extend(serde_json::from_value::<Vec<String>>(event["Containers"].clone()).unwrap()),
            "CreateContainer" => seen.push(event["Container"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }
    seen.sort();
    let mut expected = names;
    expected.extend(["here".to_owned(), "last".to_owned()]);
    expected.sort();
    assert_eq!(seen, expected);
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn validators_reject_what_others_adjust_and_required_plugins_must_answer() {
    let nri = r#"
plugin_request_timeout = "1s"
[plugins."io.containerd.nri.v1.nri".default_validator]
enable = true
reject_oci_hook_adjustment = true
required_plugins = ["needed"]
tolerate_missing_plugins_annotation = "example.test/tolerate"
"#;
    let mut setup = setup(nri).await;
    let pod = setup.pod("checked");
    let id = setup.run(&pod).await;
    let refused = setup.try_create(&id, &pod, "alone").await.unwrap_err();
    assert!(refused.message().contains("needed"), "{refused}");
    let mut tolerant = setup.pod("tolerant");
    tolerant.annotations = BTreeMap::from([("example.test/tolerate".to_owned(), "true".to_owned())]);
    let other = setup.run(&tolerant).await;
    setup.start(&other, &tolerant, "tolerated").await;

    setup.plugin("10", "needed", json!({ "Slow": { "CreateContainer": 5000 }, "Keep": true }));
    let refused = setup.try_create(&id, &pod, "unanswered").await.unwrap_err();
    assert!(refused.message().contains("did not answer"), "{refused}");
    setup.start(&id, &pod, "answered").await;

    setup.plugin("20", "hooks", json!({ "Hooks": { "poststart": [{ "path": "/bin/true" }] } }));
    let refused = setup.try_create(&id, &pod, "hooked").await.unwrap_err();
    assert!(refused.message().contains("20-hooks"), "{refused}");
    let mut hooks = setup.plugins.pop().unwrap();
    hooks.kill().unwrap();
    hooks.wait().unwrap();

    setup.plugin("30", "judge", json!({ "Validate": "writer" }));
    setup.plugin("40", "writer", json!({ "Annotations": { "k": "v" } }));
    let refused = setup.try_create(&id, &pod, "judged").await.unwrap_err();
    assert!(refused.message().contains("40-writer set annotation k"), "{refused}");
    setup.remove_pod(&id).await;
    setup.remove_pod(&other).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_plugins_run_before_the_first_pod_and_are_started_again() {
    let mut setup = setup("disable_connections = true").await;
    setup.node.stop().unwrap();
    let (plugins, configs) = (setup.node.path("nri-plugins"), setup.node.path("nri-conf.d"));
    fs::create_dir(&plugins).unwrap();
    fs::create_dir(&configs).unwrap();
    let program = plugins.join("15-installed");
    fs::copy(find("nriplugin").unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let script = json!({ "Log": setup.log("installed"), "Env": { "INSTALLED": "yes" } });
    fs::write(configs.join("installed.conf"), script.to_string()).unwrap();
    setup.node.launch().unwrap();
    setup.runtime = setup.node.cri().await.unwrap().0;
    assert!(!setup.node.path("nri.sock").exists(), "nobody else can connect");
    assert_eq!(setup.told("installed"), ["Configure", "Synchronize"], "ready before the daemon is");
    let pod = setup.pod("guarded");
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "main").await;
    assert_eq!(setup.exec(&container, "echo $INSTALLED").await, "yes");

    let mark = program.display().to_string();
    let running = || {
        let processes = setup.node.leaks().processes;
        processes
            .into_iter()
            .find(|line| line.ends_with(&mark))
            .and_then(|line| line.split(' ').next()?.parse::<u32>().ok())
    };
    let first = running().unwrap();
    kevel_e2e::run(std::path::Path::new("/bin/kill"), &["-KILL", &first.to_string()]).unwrap();
    let second = until("the plugin to be started again", || running().filter(|pid| *pid != first)).unwrap();
    until("the plugin to be told again", || {
        let told = setup.told("installed");
        (told.iter().filter(|event| *event == "Synchronize").count() == 2).then_some(())
    })
    .unwrap();
    setup.remove_pod(&id).await;
    setup.node.stop().unwrap();
    assert!(!PathBuf::from(format!("/proc/{second}")).exists(), "it ends with the daemon");
    assert!(setup.told("installed").contains(&"Shutdown".to_owned()));
    setup.clean();
}
