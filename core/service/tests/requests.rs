//! What malformed requests are answered, and that nothing is left of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use futures::StreamExt as _;
use kevel_proto::containerd::{
    services::{
        containers::v1::{self as containers, containers_client::ContainersClient},
        content::v1::{self as content, WriteAction, content_client::ContentClient},
        events::v1::{self as events, events_client::EventsClient},
        images::v1::{self as images, images_client::ImagesClient},
        leases::v1::{self as leases, leases_client::LeasesClient},
        namespaces::v1::{self as namespaces, namespaces_client::NamespacesClient},
        sandbox::v1::{self as sandbox, controller_client::ControllerClient, store_client::StoreClient},
        snapshots::v1::{self as snapshots, snapshots_client::SnapshotsClient},
        streaming::v1::{StreamInit, streaming_client::StreamingClient},
        version::v1::version_client::VersionClient,
    },
    types,
};
use kevel_proto::grpc::health::v1::{HealthCheckRequest, health_client::HealthClient};
use node::Node;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

async fn channel(node: &Node) -> Channel {
    let path = node.socket();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

fn scoped<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "test".parse().unwrap());
    request
}

fn check<T>(what: &str, answer: Result<T, Status>, code: Code, message: &str) {
    let status = answer.err().unwrap_or_else(|| panic!("{what}: succeeded"));
    assert_eq!((status.code(), status.message()), (code, message), "{what}");
}

fn default<T: Default>() -> T {
    T::default()
}

#[tokio::test(flavor = "multi_thread")]
async fn scope_comes_from_metadata() {
    let node = Node::new().await;
    let mut client = ContainersClient::new(channel(&node).await);
    let list = || Request::new(containers::ListContainersRequest::default());
    check("no namespace", client.list(list()).await, Code::FailedPrecondition, "namespace is required");
    let mut empty = list();
    empty.metadata_mut().insert("containerd-namespace", "".parse().unwrap());
    check("empty namespace", client.list(empty).await, Code::FailedPrecondition, "namespace is required");
    let mut bad = list();
    bad.metadata_mut().insert("containerd-namespace", "a b".parse().unwrap());
    let message = "namespace validation: identifier \"a b\" must be letters and digits, with single '.', '_' or '-' \
                   between them";
    check("bad namespace", client.list(bad).await, Code::InvalidArgument, message);
    client.list(scoped(default())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_records_are_refused() {
    let node = Node::new().await;
    let channel = channel(&node).await;
    let invalid = Code::InvalidArgument;

    let mut client = ContainersClient::new(channel.clone());
    check("get", client.get(scoped(default())).await, invalid, "id must not be empty");
    check("create", client.create(scoped(default())).await, invalid, "container is required");
    check("delete", client.delete(scoped(default())).await, invalid, "id must not be empty");
    let update = containers::UpdateContainerRequest { container: Some(default()), update_mask: None };
    check("update", client.update(scoped(update)).await, invalid, "container.id must not be empty");
    let filters = vec!["id==a,,".to_owned()];
    let listed = client.list(scoped(containers::ListContainersRequest { filters })).await;
    let message = "filter \"id==a,,\" is malformed at character 6: expected a field name";
    check("list", listed, invalid, message);

    let mut client = ImagesClient::new(channel.clone());
    check("get", client.get(scoped(default())).await, invalid, "name must not be empty");
    check("create", client.create(scoped(default())).await, invalid, "image is required");
    let create = images::CreateImageRequest { image: Some(default()), source_date_epoch: None };
    check("create", client.create(scoped(create)).await, invalid, "image.target is required");
    let target = types::Descriptor { digest: SHA.to_owned(), size: -1, ..default() };
    let image = images::Image { name: "a".to_owned(), target: Some(target.clone()), ..default() };
    let create = images::CreateImageRequest { image: Some(image), source_date_epoch: None };
    check("size", client.create(scoped(create)).await, invalid, "image.target.size must not be negative, is -1");
    let image = images::Image { target: Some(types::Descriptor { size: 1, ..target }), ..default() };
    let create = images::CreateImageRequest { image: Some(image), source_date_epoch: None };
    check("name", client.create(scoped(create)).await, invalid, "image.name must not be empty");

    let mut client = LeasesClient::new(channel.clone());
    check("delete", client.delete(scoped(default())).await, invalid, "id must not be empty");
    let add = leases::AddResourceRequest { id: "a".to_owned(), resource: None };
    check("add", client.add_resource(scoped(add)).await, invalid, "resource is required");
    let add = leases::AddResourceRequest { id: "a".to_owned(), resource: Some(default()) };
    check("type", client.add_resource(scoped(add)).await, invalid, "resource.type must not be empty");

    let mut client = NamespacesClient::new(channel.clone());
    let create = namespaces::CreateNamespaceRequest { namespace: None };
    check("create", client.create(create).await, invalid, "namespace is required");
    let get = namespaces::GetNamespaceRequest { name: String::new() };
    check("get", client.get(get).await, invalid, "name: identifier must not be empty");

    let mut client = StoreClient::new(channel.clone());
    check("create", client.create(scoped(default())).await, invalid, "sandbox is required");
    check("get", client.get(scoped(default())).await, invalid, "sandbox_id must not be empty");
    let mut client = ControllerClient::new(channel.clone());
    check("start", client.start(scoped(default())).await, invalid, "sandboxer must not be empty");
    let start = sandbox::ControllerStartRequest { sandbox_id: "a".to_owned(), sandboxer: "none".to_owned() };
    check("start", client.start(scoped(start)).await, Code::NotFound, "no sandbox controller \"none\"");

    let mut client = SnapshotsClient::new(channel.clone());
    check("stat", client.stat(scoped(default())).await, invalid, "snapshotter argument missing");
    let stat = snapshots::StatSnapshotRequest { snapshotter: "none".to_owned(), key: "a".to_owned() };
    check("stat", client.stat(scoped(stat)).await, invalid, "snapshotter not loaded: none");
    let stat = snapshots::StatSnapshotRequest { snapshotter: node::SNAPSHOTTER.to_owned(), key: String::new() };
    check("stat", client.stat(scoped(stat)).await, invalid, "key must not be empty");

    let mut client = EventsClient::new(channel.clone());
    check("publish", client.publish(scoped(default())).await, invalid, "topic must not be empty");
    let publish = events::PublishRequest { topic: "/a".to_owned(), event: None };
    check("publish", client.publish(scoped(publish)).await, invalid, "event is required");
    check("forward", client.forward(events::ForwardRequest::default()).await, invalid, "envelope is required");
    let forward = events::ForwardRequest { envelope: Some(default()) };
    check("forward", client.forward(forward).await, invalid, "envelope.timestamp is required");
    let timestamp = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let envelope = types::Envelope { timestamp, topic: "/a".into(), namespace: "a".into(), event: Some(default()) };
    let forwarded = client.forward(events::ForwardRequest { envelope: Some(envelope) }).await;
    check("time", forwarded, invalid, "envelope.timestamp is no moment: 9223372036854775807 s and 0 ns");

    let mut client = StreamingClient::new(channel.clone());
    let first = kevel_proto::any::pack(&types::Mount::default());
    let status = client.stream(scoped(tokio_stream::iter([first]))).await.unwrap_err();
    assert_eq!(status.code(), invalid);
    assert!(status.message().starts_with("first message of the stream: "), "{status}");
    let first = kevel_proto::any::pack(&StreamInit::default());
    check("stream", client.stream(scoped(tokio_stream::iter([first]))).await, invalid, "id must not be empty");

    assert_eq!(node.stores.containers.list(&node::scope("test"), &default()).await.unwrap(), []);
    assert_eq!(node.stores.images.list(&node::scope("test"), &default()).await.unwrap(), []);
    assert_eq!(node.stores.namespaces.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_content_calls_are_refused() {
    let node = Node::new().await;
    let mut client = ContentClient::new(channel(&node).await);
    let invalid = Code::InvalidArgument;
    let info = content::InfoRequest { digest: "md5:1".to_owned() };
    let status = client.info(scoped(info)).await.unwrap_err();
    assert_eq!(status.code(), invalid);
    assert!(status.message().starts_with("digest: digest algorithm \"md5\" is not supported"), "{status}");
    check("abort", client.abort(scoped(default())).await, invalid, "ref must not be empty");
    check("status", client.status(scoped(default())).await, invalid, "ref must not be empty");
    check("update", client.update(scoped(default())).await, invalid, "info is required");

    let digest = node.stores.content.put(&node::scope("test"), "a", "hello".into(), default()).await.unwrap();
    let read = |offset, size| content::ReadContentRequest { digest: digest.to_string(), offset, size };
    let negative = client.read(scoped(read(-1, 0))).await;
    check("read", negative, invalid, "offset must not be negative, is -1");
    let far = client.read(scoped(read(3, 3))).await;
    check("read", far, Code::OutOfRange, "read past object length 5 bytes");
    let mut parts = client.read(scoped(read(1, 3))).await.unwrap().into_inner();
    assert_eq!(parts.message().await.unwrap().unwrap().data, "ell");
    assert!(parts.message().await.unwrap().is_none());
}

/// Sends messages of one ingest; answers the offsets it got and how it ended.
async fn write(node: &Node, messages: Vec<content::WriteContentRequest>) -> (Vec<i64>, Option<Status>) {
    let mut client = ContentClient::new(channel(node).await);
    let mut answers = match client.write(scoped(tokio_stream::iter(messages))).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return (vec![], Some(status)),
    };
    let mut offsets = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(answer) => offsets.push(answer.offset),
            Err(status) => return (offsets, Some(status)),
        }
    }
    (offsets, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn ingests_follow_offsets() {
    let node = Node::new().await;
    let message = |action: WriteAction, offset, data: &'static str| content::WriteContentRequest {
        action: action.into(),
        r#ref: "r".to_owned(),
        offset,
        data: data.into(),
        ..default()
    };
    use WriteAction::{Commit, Stat, Write};
    type Case = (Vec<content::WriteContentRequest>, Vec<i64>, Option<(Code, &'static str)>);
    let cases: Vec<Case> = vec![
        (vec![default()], vec![], Some((Code::InvalidArgument, "first message must have a reference"))),
        (vec![message(Stat, 0, ""), message(Write, 0, "hello")], vec![0, 5], None),
        (
            vec![message(Stat, 0, ""), message(Write, 3, "x")],
            vec![5],
            Some((Code::OutOfRange, "write @3 must occur at current offset 5")),
        ),
        (vec![message(Write, -1, "")], vec![], Some((Code::InvalidArgument, "offset must not be negative, is -1"))),
        (vec![message(Write, 5, " world")], vec![11], None),
        (vec![message(Write, 0, "hi")], vec![2], None),
        (vec![message(Commit, 2, "!"), message(Stat, 0, "")], vec![3], None),
    ];
    for (messages, want, end) in cases {
        let what = format!("{messages:?}");
        let free = async {
            // The writer before lets its lock go when the server sees its session end.
            loop {
                let (offsets, status) = write(&node, messages.clone()).await;
                match &status {
                    Some(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
                    _ => return (offsets, status),
                }
            }
        };
        let (offsets, status) = tokio::time::timeout(std::time::Duration::from_secs(60), free).await.unwrap();
        assert_eq!(offsets, want, "{what}");
        let status = status.as_ref().map(|status| (status.code(), status.message()));
        assert_eq!(status, end, "{what}");
    }
    let digest = kevel_model::Digest::sha256(b"hi!");
    assert_eq!(node.stores.content.info(&node::scope("test"), &digest).await.unwrap().size, 3);
    let again = content::WriteContentRequest { expected: digest.to_string(), ..message(Stat, 0, "") };
    let (_, status) = write(&node, vec![again]).await;
    assert_eq!(status.unwrap().code(), Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_health_need_no_namespace() {
    let node = Node::new().await;
    let channel = channel(&node).await;
    let version = VersionClient::new(channel.clone()).version(()).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.revision.as_str()), ("1.2.3", "abc"));
    let mut health = HealthClient::new(channel);
    let check_of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    assert_eq!(health.check(check_of("")).await.unwrap().into_inner().status, 1);
    check("health", health.check(check_of("x")).await, Code::NotFound, "unknown service");
}
