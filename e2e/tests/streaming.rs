//! Exec, Attach and PortForward with clients that are not ours: Kubernetes' Go library over SPDY and WebSocket, and a
//! Python WebSocket client.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
};

use kevel_e2e::{Node, NodeOptions, Registry, eventually, find, patience, run};
use kevel_proto::runtime::v1 as cri;
use serde_json::Value;
use tonic::{Code, transport::Channel};

type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;
type Images = cri::image_service_client::ImageServiceClient<Channel>;

/// A node with one pod.
struct Setup {
    registry: Registry,
    node: Node,
    runtime: Runtime,
    images: Images,
    pod: cri::PodSandboxConfig,
    pod_id: String,
}

impl Setup {
    async fn new(config: &str, network: cri::NamespaceMode) -> Self {
        let registry = Registry::start(&["busybox", "pause"]).unwrap();
        let options = NodeOptions {
            config: config.to_owned(),
            hosts_dir: registry.hosts_dir().to_owned(),
            sandbox_image: registry.reference("pause").to_owned(),
            ..NodeOptions::default()
        };
        let node = Node::start(&options).unwrap();
        let (runtime, images) = node.cri().await.unwrap();
        let namespaces = cri::NamespaceOption { network: network.into(), ..Default::default() };
        let security = cri::LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
        let pod = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: "streams".to_owned(),
                uid: "uid".to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: node.path("logs").display().to_string(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", node.mark()),
                security_context: Some(security),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut setup = Self { registry, node, runtime, images, pod, pod_id: String::new() };
        let request = cri::PullImageRequest { image: Some(setup.image()), ..Default::default() };
        setup.images.pull_image(request).await.unwrap();
        let request = cri::RunPodSandboxRequest { config: Some(setup.pod.clone()), ..Default::default() };
        setup.pod_id = setup.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
        setup
    }

    fn image(&self) -> cri::ImageSpec {
        cri::ImageSpec { image: self.registry.reference("busybox").to_owned(), ..Default::default() }
    }

    /// Starts a container that runs a script; `change` makes it another one.
    async fn start(&mut self, name: &str, script: &str, change: impl FnOnce(&mut cri::ContainerConfig)) -> String {
        let mut config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(self.image()),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            ..Default::default()
        };
        change(&mut config);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: self.pod_id.clone(),
            config: Some(config),
            sandbox_config: Some(self.pod.clone()),
        };
        let container_id = self.runtime.create_container(request).await.unwrap().into_inner().container_id;
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        self.runtime.start_container(request).await.unwrap();
        container_id
    }

    async fn exec(&mut self, container: &str, script: &str, streams: &str) -> String {
        let request = exec(container, &["sh", "-c", script], streams);
        self.runtime.exec(request).await.unwrap().into_inner().url
    }

    async fn attach(&mut self, container: &str, streams: &str) -> String {
        let cri::ExecRequest { container_id, tty, stdin, stdout, stderr, .. } = exec(container, &[], streams);
        let request = cri::AttachRequest { container_id, tty, stdin, stdout, stderr };
        self.runtime.attach(request).await.unwrap().into_inner().url
    }

    async fn forward(&mut self, port: &[i32]) -> String {
        let request = cri::PortForwardRequest { pod_sandbox_id: self.pod_id.clone(), port: port.to_vec() };
        self.runtime.port_forward(request).await.unwrap().into_inner().url
    }

    async fn status(&mut self, container: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        self.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// What a container printed.
    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.node.path(&format!("logs/{name}.log"))).unwrap_or_default()
    }

    /// Waits until a script in a container succeeds.
    async fn wait(&mut self, container: &str, script: &str) {
        let script = format!("until {script}; do sleep 0.05; done");
        let cmd = ["sh", "-c", &script].map(str::to_owned).to_vec();
        let timeout = i64::try_from(patience(60).as_secs()).unwrap();
        let request = cri::ExecSyncRequest { container_id: container.to_owned(), cmd, timeout };
        let said = self.runtime.exec_sync(request).await.unwrap().into_inner();
        assert_eq!(said.exit_code, 0, "{script}: {said:?}");
    }

    async fn end(mut self) {
        let pod_sandbox_id = self.pod_id.clone();
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.runtime.stop_pod_sandbox(stop).await.unwrap();
        self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
        self.node.remove_parent_cgroup();
        self.node.assert_no_leaks().unwrap();
    }
}

/// A request for the streams whose first letters are given: `i`, `o`, `e`, and `t` for a terminal.
fn exec(container: &str, cmd: &[&str], streams: &str) -> cri::ExecRequest {
    cri::ExecRequest {
        container_id: container.to_owned(),
        cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
        tty: streams.contains('t'),
        stdin: streams.contains('i'),
        stdout: streams.contains('o'),
        stderr: streams.contains('e'),
    }
}

/// Runs the Go client and answers what it saw.
fn go(arguments: &[&str]) -> Value {
    let said = run(&find("stream").unwrap(), arguments).unwrap().ok().unwrap();
    serde_json::from_str(&said).unwrap()
}

/// Runs the Python client and answers what it saw.
fn python(arguments: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/websocket_client.py");
    let arguments = [&[script.to_str().unwrap()], arguments].concat();
    serde_json::from_str(&run(Path::new("/usr/bin/python3"), &arguments).unwrap().ok().unwrap()).unwrap()
}

fn check(got: &Value, code: i64, error: &str, stdout: &str) {
    let found =
        (got["code"].as_i64().unwrap(), got["error"].as_str().unwrap(), got["stdout"]["text"].as_str().unwrap());
    assert!(found.0 == code && found.2 == stdout, "{got:#}");
    assert!(if error.is_empty() { found.1.is_empty() } else { found.1.contains(error) }, "{got:#}");
}

const CONNECTIONS: usize = 12;
const TRANSPORTS: [&[&str]; 2] = [&[], &["-websocket"]];

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_their_code_and_lose_nothing() {
    let mut setup = Setup::new("", cri::NamespaceMode::Pod).await;
    let container = setup.start("idle", "exec sleep 1000", |_| {}).await;
    let expected = run(Path::new("/bin/sh"), &["-c", "seq 2000000 | sha256sum"]).unwrap().ok().unwrap();
    let expected = expected.split(' ').next().unwrap();
    for transport in TRANSPORTS {
        let command = |more: &[&str], url: &str| go(&[&["command"], transport, more, &[url]].concat());
        let url = setup.exec(&container, "echo out; echo err >&2; exit 7", "oe").await;
        let got = command(&["-stderr"], &url);
        check(&got, 7, "", "out\n");
        assert_eq!(got["stderr"]["text"], "err\n");
        // The token is used up.
        check(&command(&["-stderr"], &url), 0, "no request waits", "");

        let url = setup.exec(&container, "true", "o").await;
        check(&command(&[], &url), 0, "", "");
        let request = exec(&container, &["no-such-program"], "o");
        let url = setup.runtime.exec(request).await.unwrap().into_inner().url;
        check(&command(&[], &url), 0, "no-such-program", "");

        // The end of the input is the end of cat, and not of its output.
        let url = setup.exec(&container, "cat; echo end", "io").await;
        let steps = r#"[{"input":"0123456789abcde\n","repeat":50000,"close":true}]"#;
        let got = command(&["-stdin", "-steps", steps], &url);
        assert_eq!(
            (got["code"].as_i64(), got["stdout"]["bytes"].as_i64()),
            (Some(0), Some(800_004)),
            "{}",
            got["error"]
        );

        // Two million lines for a client that begins slowly, then the code.
        let url = setup.exec(&container, "seq 2000000; exit 3", "o").await;
        let got = command(&["-slow", "1500"], &url);
        assert_eq!(
            (got["code"].as_i64(), got["stdout"]["lines"].as_i64()),
            (Some(3), Some(2_000_000)),
            "{}",
            got["error"]
        );
        assert_eq!(got["stdout"]["sum"], expected);

        // A command with a terminal, whose size changes.
        let sized = |size: &str| {
            format!("until [ \"$(stty size 2>/dev/null)\" = \"{size}\" ]; do sleep 0.05; done; echo is {size}")
        };
        let script = format!("{}; {}; exit 5", sized("24 80"), sized("43 132"));
        let url = setup.exec(&container, &script, "iot").await;
        let steps = r#"[{"width":80,"height":24},{"wait":"is 24 80","width":132,"height":43}]"#;
        check(&command(&["-tty", "-stdin", "-steps", steps], &url), 5, "", "is 24 80\r\nis 43 132\r\n");
    }
    setup.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_protocols_and_python_are_spoken_with() {
    let mut setup = Setup::new("", cri::NamespaceMode::Pod).await;
    let container = setup.start("idle", "exec sleep 1000", |_| {}).await;
    let old = "command terminated with non-zero exit code: 4";
    for (protocol, code, error) in
        [("v4.channel.k8s.io", 4, ""), ("v3.channel.k8s.io", 0, old), ("v2.channel.k8s.io", 0, old)]
    {
        let url = setup.exec(&container, "echo out; exit 4", "o").await;
        check(&go(&["command", "-protocols", protocol, &url]), code, error, "out\n");
    }
    // Clients of the first version look at errors only until the output ends: no promise but the output.
    let url = setup.exec(&container, "echo out", "o").await;
    check(&go(&["command", "-protocols", "channel.k8s.io", &url]), 0, "", "out\n");
    let url = setup.exec(&container, "echo out", "o").await;
    check(&go(&["command", "-protocols", "v9.channel.k8s.io", &url]), 0, "spoken here", "");

    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"] {
        let url = setup.exec(&container, "read x; echo got $x; exit 6", "io").await;
        let got = python(&["command", &url, protocol, "--input", "hello\n"]);
        assert_eq!(got["protocol"], protocol);
        assert_eq!(got["channels"]["1"], "got hello\n", "{got:#}");
        let status: Value = serde_json::from_str(got["channels"]["3"].as_str().unwrap()).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "6", "{status}");
    }
    for protocol in ["channel.k8s.io", "base64.channel.k8s.io", ""] {
        let url = setup.exec(&container, "echo out; exit 6", "o").await;
        let got = python(&["command", &url, protocol]);
        assert_eq!(got["channels"]["1"], "out\n", "{got:#}");
        assert_eq!(got["channels"]["3"], "command terminated with non-zero exit code: 6", "{got:#}");
    }
    // Version 5 can close the input alone.
    let url = setup.exec(&container, "cat; echo end", "io").await;
    let got = python(&["command", &url, "v5.channel.k8s.io", "--input", "hello\n", "--close"]);
    assert_eq!(got["channels"]["1"], "hello\nend\n", "{got:#}");

    let server = "exec nc -ll -p 7001 -e cat";
    setup.start("echo", server, |_| {}).await;
    setup.wait(&container, "netstat -ltn | grep -q :7001").await;
    for protocol in ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"] {
        let url = setup.forward(&[7001, 7001]).await;
        let got = python(&["forward", &url, protocol, "--input", "ping"]);
        assert_eq!(got["ports"], serde_json::json!([7001, 7001]), "{got:#}");
        assert_eq!(got["replies"], serde_json::json!(["ping", "ping"]), "{got:#}");
    }
    setup.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_attach_together_and_leave() {
    let mut setup = Setup::new("", cri::NamespaceMode::Pod).await;
    // It ticks until both have typed.
    let talk = "(while sleep 0.1; do echo tick; done) & read x; read y; kill $!; echo all of it";
    let both = setup.start("both", talk, |config| config.stdin = true).await;
    let idle = setup.start("idle", "exec sleep 1000", |_| {}).await;
    let watchers: Vec<_> = TRANSPORTS
        .into_iter()
        .map(|transport| (transport, setup.runtime.clone(), both.clone()))
        .map(|(transport, mut runtime, container)| {
            tokio::spawn(async move {
                let cri::ExecRequest { container_id, stdin, stdout, .. } = exec(&container, &[], "io");
                let request = cri::AttachRequest { container_id, stdin, stdout, ..Default::default() };
                let url = runtime.attach(request).await.unwrap().into_inner().url;
                let steps = r#"[{"wait":"tick","input":"x\n"}]"#;
                let arguments = [&["command"], transport, &["-stdin", "-steps", steps, &url]].concat();
                tokio::task::block_in_place(|| go(&arguments))
            })
        })
        .collect();
    for watcher in watchers {
        let got = watcher.await.unwrap();
        let text = got["stdout"]["text"].as_str().unwrap();
        assert!(text.contains("tick\n") && text.ends_with("all of it\n"), "{got:#}");
        assert_eq!(got["error"], "");
    }

    // Input for one client only ends with it, and so does cat.
    let once = setup.start("once", "cat; exit 9", |config| (config.stdin, config.stdin_once) = (true, true)).await;
    let url = setup.attach(&once, "io").await;
    let steps = r#"[{"input":"hello\n"},{"wait":"hello","close":true}]"#;
    check(&go(&["command", "-stdin", "-steps", steps, &url]), 0, "", "hello\n");
    until_exited(&mut setup, &once, 9).await;

    // From a container that keeps its input a client that has said all goes, and the container stays.
    let keeps = setup.start("keeps", "cat", |config| config.stdin = true).await;
    for word in ["one", "two"] {
        let url = setup.attach(&keeps, "io").await;
        let steps = format!(r#"[{{"input":"{word}\n"}},{{"wait":"{word}","close":true}}]"#);
        check(&go(&["command", "-websocket", "-stdin", "-steps", &steps, &url]), 0, "", &format!("{word}\n"));
    }
    assert_eq!(setup.status(&keeps).await.state(), cri::ContainerState::ContainerRunning);

    // A terminal has the size of its client's.
    let shell = setup.start("shell", "exec sh", |config| (config.stdin, config.tty) = (true, true)).await;
    let url = setup.attach(&shell, "iot").await;
    let line = r#"until [ \"$(stty size)\" = \"43 132\" ]; do sleep 0.1; done; echo si''zed\n"#;
    let steps = format!(r#"[{{"width":132,"height":43,"input":"{line}"}},{{"wait":"sized","input":"exit 8\n"}}]"#);
    let got = go(&["command", "-tty", "-stdin", "-steps", &steps, &url]);
    assert!(got["error"] == "" && got["stdout"]["text"].as_str().unwrap().contains("sized\r\n"), "{got:#}");
    until_exited(&mut setup, &shell, 8).await;

    // A client that breaks off takes its terminal with it.
    let url = setup.exec(&idle, "echo rea''dy; exec sleep 98765", "iot").await;
    let got = go(&["command", "-tty", "-stdin", "-leave", "ready", &url]);
    assert_ne!(got["error"], "", "{got:#}");
    setup.wait(&idle, "! ps | grep -q 'sleep [9]8765'").await;
    // A command without one runs on, and is not held up by output that nobody reads.
    for (transport, done) in TRANSPORTS.into_iter().zip(["/done-spdy", "/done-websocket"]) {
        let url = setup.exec(&idle, &format!("echo ready; seq 3000000; touch {done}"), "o").await;
        let got = go(&[&["command"], transport, &["-leave", "ready", &url]].concat());
        assert_ne!(got["error"], "", "{got:#}");
        setup.wait(&idle, &format!("[ -e {done} ]")).await;
    }
    setup.end().await;
}

async fn until_exited(setup: &mut Setup, container: &str, code: i32) {
    let mut status = cri::ContainerStatus::default();
    eventually("the container to end", async || {
        status = setup.status(container).await;
        status.state() == cri::ContainerState::ContainerExited
    })
    .await;
    assert_eq!(status.exit_code, code);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded() {
    let mut setup = Setup::new("", cri::NamespaceMode::Pod).await;
    let script = "mkdir /w; seq 100000 > /w/x; exec httpd -f -p 7000 -h /w";
    let container = setup.start("web", script, |_| {}).await;
    setup.wait(&container, "netstat -ltn | grep -q :7000").await;
    for transport in TRANSPORTS {
        let url = setup.forward(&[]).await;
        let flags = ["-port", "7000", "-connections", "12", "-send", "GET /x HTTP/1.0\r\n\r\n", &url];
        let got = go(&[&["forward"], transport, &flags].concat());
        let replies = got["replies"].as_array().unwrap();
        assert!(replies.len() == 12 && got["error"] == "" && got["told"] == "", "{got:#}");
        for reply in replies {
            let (text, bytes) = (reply["text"].as_str().unwrap(), reply["bytes"].as_u64().unwrap());
            let head = text.find("\r\n\r\n").map_or(0, |end| end as u64 + 4);
            assert!(
                text.starts_with("HTTP/1.") && bytes == head + 588_895,
                "{transport:?} {got:#}\n{}",
                setup.log("web")
            );
        }
        let url = setup.forward(&[]).await;
        let got = go(&[&["forward"], transport, &["-port", "7999", &url]].concat());
        assert!(got["told"].as_str().unwrap().contains("refused"), "{got:#}");
    }
    setup.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_node_are_forwarded_over_tls() {
    let config = "[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_tls_streaming = true\n";
    let mut setup = Setup::new(config, cri::NamespaceMode::Node).await;
    let container = setup.start("idle", "exec sleep 1000", |_| {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || {
        // Answers come after the client's half-close, and all connections are open at the same time.
        for _ in TRANSPORTS {
            let sockets: Vec<_> = (0..CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
            for mut socket in sockets {
                let mut text = String::new();
                socket.read_to_string(&mut text).unwrap();
                socket.write_all(text.as_bytes()).unwrap();
            }
        }
    });
    for transport in TRANSPORTS {
        let url = setup.forward(&[]).await;
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        let flags = ["-port", &port, "-connections", "12", "-send", "this is %d. ", "-repeat", "20000", &url];
        let got = go(&[&["forward"], transport, &flags].concat());
        let replies = got["replies"].as_array().unwrap();
        assert!(replies.len() == CONNECTIONS && got["error"] == "" && got["told"] == "", "{got:#}");
        for reply in replies {
            assert_eq!((&reply["error"], &reply["sum"]), (&Value::from(""), &reply["sent"]), "{transport:?} {got:#}");
        }
        let url = setup.exec(&container, "echo safe; exit 2", "o").await;
        check(&go(&[&["command"], transport, &[&url]].concat()), 2, "", "safe\n");
    }
    server.join().unwrap();
    setup.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused_and_silent_clients_let_go() {
    let idle = patience(1).as_secs();
    let config = format!("[plugins.\"io.containerd.grpc.v1.cri\"]\nstream_idle_timeout = \"{idle}s\"\n");
    let mut setup = Setup::new(&config, cri::NamespaceMode::Pod).await;
    let container = setup.start("ends", "exit 0", |_| {}).await;
    until_exited(&mut setup, &container, 0).await;
    let runs = setup.start("runs", "exec sleep 1000", |_| {}).await;
    let bad = [
        (exec(&runs, &["sh"], "oet"), Code::InvalidArgument),
        (exec(&runs, &["sh"], "t"), Code::InvalidArgument),
        (exec(&runs, &[], "o"), Code::InvalidArgument),
        (exec("", &["sh"], "o"), Code::InvalidArgument),
        (exec("nothing", &["sh"], "o"), Code::NotFound),
        (exec(&container, &["sh"], "o"), Code::FailedPrecondition),
    ];
    for (request, code) in bad {
        let refused = setup.runtime.exec(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{request:?}: {refused}");
        let cri::ExecRequest { container_id, tty, stdin, stdout, stderr, cmd } = request;
        if !cmd.is_empty() {
            let request = cri::AttachRequest { container_id, tty, stdin, stdout, stderr };
            assert_eq!(setup.runtime.attach(request).await.unwrap_err().code(), code);
        }
    }
    for (id, port, code) in [
        (setup.pod_id.as_str(), -1, Code::InvalidArgument),
        (&setup.pod_id, 65536, Code::InvalidArgument),
        ("", 80, Code::InvalidArgument),
        ("nothing", 80, Code::NotFound),
    ] {
        let request = cri::PortForwardRequest { pod_sandbox_id: id.to_owned(), port: vec![port] };
        let refused = setup.runtime.clone().port_forward(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{id} {port}: {refused}");
    }
    // A token of one kind is none of another, and is used up by trying.
    let url = setup.exec(&runs, "true", "o").await;
    check(&go(&["command", &url.replace("/exec/", "/attach/")]), 0, "no request waits", "");
    check(&go(&["command", &url]), 0, "no request waits", "");
    for transport in TRANSPORTS {
        let url = setup.exec(&runs, "echo out; exec sleep 1000", "o").await;
        let got = go(&[&["command"], transport, &[&url]].concat());
        assert_eq!(got["stdout"]["text"], "out\n", "{got:#}");
        assert!(!got["error"].as_str().unwrap().contains("deadline"), "{got:#}");
    }
    setup.end().await;
}
