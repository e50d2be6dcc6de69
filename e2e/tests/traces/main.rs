//! Traces: spans of calls, of what CRI operations consist of and of calls to shims arrive at a collector, in the trace of
//! the caller; a collector that does not answer is in nobody's way; builds and configurations without traces say so.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

mod collector;

use collector::{Collector, Span};
use kevel_e2e::{Client, Node, NodeOptions, Registry};
use kevel_proto::runtime::v1 as cri;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tonic::Request;

/// The daemon with the feature `otlp`.
const TRACING: Option<&str> = Some("examples/keveld-otlp");
const RPC: &str = "runtime.v1.RuntimeService";

/// A request of a caller whose span is the first of a trace, recorded or not.
fn traced<T>(message: T, trace: &str, recorded: bool) -> Request<T> {
    let mut request = Request::new(message);
    let traceparent = format!("00-{trace}-{PARENT}-{:02x}", u8::from(recorded));
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request
}

const PARENT: &str = "00f067aa0ba902b7";

/// A trace of the test's own.
fn trace(number: u8) -> String {
    format!("4bf92f3577b34da6a3ce929d0e0e47{number:02x}")
}

/// A node that exports in short intervals, by the tables of the configuration.
fn options(registry: &Registry, endpoint: &str, more: &str) -> NodeOptions {
    let config = format!(
        "[plugins.\"io.containerd.tracing.processor.v1.otlp\"]\nendpoint = \"{endpoint}\"\nprotocol = \"grpc\"\n\
         [plugins.\"io.containerd.internal.v1.tracing\"]\n{more}\n"
    );
    NodeOptions { config, daemon: TRACING, ..registry.node_options() }
}

fn start(options: &NodeOptions, variables: &[(&str, &str)]) -> Node {
    let mut node = Node::prepare(options).unwrap();
    for (name, value) in variables {
        node.set_env(name, value);
    }
    node.launch().unwrap();
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_spans_are_of_its_callers_trace() {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let collector = Collector::grpc().await;
    let logged = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(&logged, "version = 4\n[debug]\nlog_trace_id = true\n").unwrap();
    let mut options = options(&registry, &collector.url(), "service_name = \"node-a\"");
    options.top = format!("imports = [{:?}]", logged.path());
    let node = start(&options, &[("OTEL_BSP_SCHEDULE_DELAY", "100")]);
    let client = Client::of(&node, registry.reference("busybox")).await.unwrap();

    let [run, create, begin, wrong] = [1, 2, 3, 4].map(trace);
    let request = cri::RunPodSandboxRequest { config: Some(client.config("traced")), ..Default::default() };
    let pod = client.runtime.clone().run_pod_sandbox(traced(request, &run, true)).await.unwrap();
    let pod = pod.into_inner().pod_sandbox_id;
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(client.container("c", "sleep 1000")),
        sandbox_config: Some(client.config("traced")),
    };
    let container = client.runtime.clone().create_container(traced(request, &create, true)).await.unwrap();
    let container_id = container.into_inner().container_id;
    let request = cri::StartContainerRequest { container_id };
    client.runtime.clone().start_container(traced(request, &begin, true)).await.unwrap();
    let request = cri::StartContainerRequest { container_id: "nobody".to_owned() };
    client.runtime.clone().start_container(traced(request, &wrong, true)).await.unwrap_err();

    let call = collector.wait(&run, &format!("{RPC}/RunPodSandbox"));
    assert_eq!((call.parent.as_str(), call.kind, &call.failure), (PARENT, SpanKind::Server, &None), "{call:#?}");
    assert_eq!(call.service, "node-a");
    let of = |name: &str| call.attributes.get(name).map(String::as_str);
    assert_eq!(
        (of("rpc.system"), of("rpc.service"), of("rpc.method")),
        (Some("grpc"), Some(RPC), Some("RunPodSandbox"))
    );
    assert_eq!(of("rpc.grpc.status_code"), Some("0"));
    let operation = below(&collector, &call, "run_pod_sandbox");
    for stage in ["writing the record", "making the network namespace", "making files", "making the sandbox"] {
        below(&collector, &operation, stage);
    }
    let network = below(&collector, &operation, "cni set_up_pod");
    below(&collector, &network, "cni ADD bridge");
    let started = collector.wait(&run, "containerd-shim-runc-v2 start");
    assert_eq!(started.failure, None);
    assert_eq!(collector.wait(&run, "containerd.task.v3.Task/Create").kind, SpanKind::Client);

    let call = collector.wait(&create, &format!("{RPC}/CreateContainer"));
    below(&collector, &below(&collector, &call, "create_container"), "preparing the root file system");
    let call = collector.wait(&begin, &format!("{RPC}/StartContainer"));
    let operation = below(&collector, &call, "start_container");
    below(&collector, &operation, "creating the task");
    below(&collector, &operation, "starting the task");

    let call = collector.wait(&wrong, &format!("{RPC}/StartContainer"));
    assert_eq!(call.attributes["rpc.grpc.status_code"], "5");
    assert!(call.failure.as_ref().is_some_and(|why| why.contains("nobody")), "{call:#?}");

    // The pull was nobody's: a trace of its own.
    let pull = collector.all("runtime.v1.ImageService/PullImage").remove(0);
    assert_eq!(pull.parent, "");
    let operation = below(&collector, &pull, "pull_image");
    below(&collector, &operation, "transfer ");
    collector.wait(&pull.trace, "resolve");
    collector.wait(&pull.trace, "fetch sha256:");
    collector.wait(&pull.trace, "unpack sha256:");

    assert!(node.log().lines().any(|line| line.contains(&format!("trace_id={run} span_id="))), "{}", node.log());
    client.remove_pod(&pod).await.unwrap();
    node.remove_parent_cgroup();
    node.assert_no_leaks().unwrap();
}

/// Waits for a span below another one.
fn below(collector: &Collector, parent: &Span, name: &str) -> Span {
    let span = collector.wait(&parent.trace, name);
    assert_eq!(span.parent, parent.id, "{span:#?} is not below {parent:#?}");
    span
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_does_not_record_is_not_sent() {
    let registry = Registry::start(&["pause"]).unwrap();
    let collector = Collector::grpc().await;
    let mut node = start(&options(&registry, &collector.url(), "sampling_ratio = 0.0"), &[]);
    let (mut runtime, _) = node.cri().await.unwrap();
    let [silent, loud] = [11, 12].map(trace);
    let version = cri::VersionRequest::default;
    runtime.version(traced(version(), &silent, false)).await.unwrap();
    runtime.version(version()).await.unwrap();
    runtime.version(traced(version(), &loud, true)).await.unwrap();
    assert_eq!(node.stop().unwrap(), 0);
    // All that is left was sent at the end.
    assert_eq!(collector.of(&loud).len(), 1);
    assert!(collector.of(&silent).is_empty());
    assert_eq!(collector.all("").len(), 1, "{:#?}", collector.all(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_says_it_all_over_http() {
    let registry = Registry::start(&["pause"]).unwrap();
    let collector = Collector::http().await;
    // The table's collector would answer nothing.
    let table = Collector::dead().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x".to_owned()),
        ("OTEL_SERVICE_NAME", "node-b".to_owned()),
        // So that only the end of the daemon sends anything.
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000".to_owned()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut node = start(&options(&registry, &table.url(), "service_name = \"node-a\""), &variables);
    let (mut runtime, _) = node.cri().await.unwrap();
    let mine = trace(21);
    runtime.version(traced(cri::VersionRequest::default(), &mine, true)).await.unwrap();
    assert!(collector.of(&mine).is_empty());
    assert_eq!(node.stop().unwrap(), 0);
    let spans = collector.of(&mine);
    assert_eq!((spans.len(), spans[0].service.as_str()), (1, "node-b"), "{spans:#?}");
    let sent = collector.sent().remove(0);
    assert_eq!((sent.path.as_str(), sent.authorization.as_str()), ("/v1/traces", "Bearer x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_is_in_nobodys_way() {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    for (collector, protocol) in [
        (Collector::mute().await, "grpc"),
        (Collector::mute().await, "http/protobuf"),
        (Collector::dead().await, "grpc"),
        (Collector::dead().await, "http/protobuf"),
    ] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            // An end of the daemon that waited for the collector would take an hour.
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ];
        let mut node = start(&options(&registry, &collector.url(), ""), &variables);
        let client = Client::of(&node, registry.reference("busybox")).await.unwrap();
        let pod = client.run(client.config("p"), "").await.unwrap();
        for _ in 0..100 {
            client.runtime.clone().version(cri::VersionRequest::default()).await.unwrap();
        }
        client.remove_pod(&pod).await.unwrap();
        assert_eq!(node.stop().unwrap(), 0);
        node.remove_parent_cgroup();
        node.assert_no_leaks().unwrap();
    }
}

#[test]
fn without_traces_it_is_said() {
    let registry = Registry::start(&["pause"]).unwrap();
    let tables = options(&registry, "http://127.0.0.1:4317", "sampling_ratio = 0.5");
    let without = start(&NodeOptions { daemon: None, ..tables.clone() }, &[]);
    let log = without.log();
    let said = |log: &str, what: &str| assert!(log.contains(what), "{what:?} is not in {log}");
    said(&log, "keveld is built without the feature otlp: no traces are exported endpoint=\"http://127.0.0.1:4317\"");
    assert!(!log.contains("unknown configuration key") && !log.contains("a plugin that is not here"), "{log}");
    let variable = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
    said(
        &start(&registry.node_options(), &variable).log(),
        "no traces are exported endpoint=\"http://127.0.0.1:4318\"",
    );

    let unconfigured = NodeOptions { daemon: TRACING, ..registry.node_options() };
    let node = start(&unconfigured, &[]);
    said(&node.log(), "no endpoint is configured");
    let plugins = node.ctr(&["plugins", "ls"]).unwrap();
    let status = |plugins: &str, id: &str| {
        let line = plugins.lines().find(|line| line.split_whitespace().nth(1) == Some(id));
        line.and_then(|line| line.split_whitespace().last()).map(str::to_owned)
    };
    assert_eq!(status(&plugins, "otlp").as_deref(), Some("skip"), "{plugins}");
    assert_eq!(status(&plugins, "tracing").as_deref(), Some("skip"), "{plugins}");
    said(&start(&tables, &[("OTEL_SDK_DISABLED", "true")]).log(), "tracing is disabled by OTEL_SDK_DISABLED=true");
}

#[test]
fn a_wrong_value_is_refused_by_its_key() {
    let registry = Registry::start(&["pause"]).unwrap();
    let good = options(&registry, "http://127.0.0.1:4317", "");
    for (was, is, want) in [
        ("protocol = \"grpc\"", "protocol = \"http/json\"", "protocol: \"http/json\" is not http/protobuf or grpc"),
        ("\"http://127.0.0.1:4317\"", "\"ftp://x\"", "endpoint: \"ftp://x\" is not http://HOST:PORT"),
        ("v1.tracing\"]\n", "v1.tracing\"]\nsampling_ratio = 2.0\n", "sampling_ratio: 2 is not between 0 and 1"),
    ] {
        let config = good.config.replace(was, is);
        assert_ne!(config, good.config);
        let refused = Node::start(&NodeOptions { config, ..good.clone() }).err().map(|error| format!("{error:#}"));
        assert!(refused.as_ref().is_some_and(|why| why.contains(want)), "{want}: {refused:?}");
    }
}
