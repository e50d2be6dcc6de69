//! Transfers over the socket: what the messages become, questions for credentials, progress, and archives in streams.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use kevel_client::{Remote, convert, stream};
use kevel_contract::{
    Scope,
    call::Target,
    image::Image,
    stream::{Stream, StreamManager},
    transfer::{Archive, ArchiveSink, Backend, Credentials, Export, Import, Progress, Pull, Push, Unpack},
};
use kevel_model::{Any, Code, Descriptor, Digest, Error, Labels, Result};
use kevel_proto::{
    any,
    containerd::{
        services::transfer::v1::{TransferOptions, TransferRequest, transfer_client::TransferClient},
        types::transfer::{
            AuthRequest, AuthResponse, AuthType, Data, ImageExportStream, ImageImportStream, ImageStore, OciRegistry,
            Progress as ProgressMessage, RegistryResolver, WindowUpdate,
        },
    },
};
use kevel_service::{streaming, transfer::Transfer};
use node::{Node, scope};
use prost::{Message, Name};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use tonic::{Request, Status, transport::Endpoint};

/// Remembers what it was asked for.
#[derive(Clone, Default)]
struct Memory {
    pulls: Arc<Mutex<Vec<Pull>>>,
    archive: Arc<Mutex<Vec<u8>>>,
}

fn image(name: &str) -> Image {
    Image::new(name, Descriptor::new("application/x", Digest::sha256(b""), 0), Labels::new())
}

#[async_trait]
impl Backend for Memory {
    async fn pull(&self, _: &Scope, mut pull: Pull) -> Result<Image> {
        let news = |event: &str| Progress {
            event: event.to_owned(),
            name: "layer".to_owned(),
            parents: vec!["index".to_owned()],
            progress: 1,
            total: 2,
            descriptor: None,
        };
        if let Some(progress) = pull.progress.take() {
            progress.try_send(news("downloading")).unwrap();
            progress.try_send(news("complete")).unwrap();
        }
        let made = image(&pull.reference);
        self.pulls.lock().unwrap().push(pull);
        Ok(made)
    }

    async fn push(&self, _: &Scope, _: Push) -> Result<()> {
        Err(Error::unimplemented("push"))
    }

    async fn import(&self, _: &Scope, mut archive: Archive, _: Import) -> Result<Vec<Image>> {
        let mut read = Vec::new();
        archive.read_to_end(&mut read).await.map_err(|error| Error::io("reading the archive", error))?;
        *self.archive.lock().unwrap() = read;
        Ok(vec![])
    }

    async fn export(&self, _: &Scope, mut archive: ArchiveSink, _: Export) -> Result<()> {
        let data = self.archive.lock().unwrap().clone();
        archive.write_all(&data).await.map_err(|error| Error::io("writing the archive", error))
    }

    async fn unpack(&self, _: &Scope, _: &str, _: Unpack) -> Result<()> {
        Err(Error::unimplemented("unpack"))
    }

    async fn tag(&self, _: &Scope, name: &str, new_name: &str) -> Result<Image> {
        if name == "a" { Ok(image(new_name)) } else { Err(Error::not_found(format!("image {name:?}"))) }
    }
}

async fn node() -> (Node, Memory) {
    let memory = Memory::default();
    let streams = StreamManager::new(Target::local("streams"), streaming::Manager::default());
    let service = kevel_contract::transfer::Transfer::new(Target::local("memory"), memory.clone());
    let node = Node::with_streams(streams.clone(), Transfer { service, streams }.offer()).await;
    (node, memory)
}

async fn transfer<S: Message + Name, D: Message + Name>(
    node: &Node,
    source: &S,
    destination: &D,
    progress_stream: &str,
) -> Result<(), Status> {
    let path = node.socket();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    let mut request = Request::new(TransferRequest {
        source: Some(any::pack(source)),
        destination: Some(any::pack(destination)),
        options: Some(TransferOptions { progress_stream: progress_stream.to_owned() }),
    });
    convert::scope::wire(&scope("a"), request.metadata_mut()).unwrap();
    TransferClient::new(channel).transfer(request).await.map(|_| ())
}

fn pack<M: Message + Name>(message: &M) -> Any {
    convert::any_read(any::pack(message))
}

async fn receive<M: Message + Name + Default>(stream: &mut Stream) -> Option<M> {
    stream.rx.recv().await.map(|message| any::unpack(&convert::any_wire(message)).unwrap())
}

async fn open(remote: &Remote, id: &str) -> Stream {
    stream::open(remote, &scope("a"), id).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_ask_for_credentials_and_tell_progress() {
    let (node, memory) = node().await;
    let remote = node.remote();
    let (mut auth, mut progress) = (open(&remote, "auth").await, open(&remote, "progress").await);
    let resolver = RegistryResolver {
        auth_stream: "auth".to_owned(),
        host_dir: "/certs".to_owned(),
        default_scheme: "http".to_owned(),
        ..RegistryResolver::default()
    };
    let source = OciRegistry { reference: "docker.io/library/x:1".to_owned(), resolver: Some(resolver) };
    let destination = ImageStore { name: "mine".to_owned(), ..ImageStore::default() };
    let answering = async {
        let question: AuthRequest = receive(&mut auth).await.unwrap();
        assert_eq!((question.host.as_str(), &question.reference), ("registry-1.docker.io", &source.reference));
        let auth_type = AuthType::Credentials.into();
        let (secret, username) = ("secret".to_owned(), "me".to_owned());
        auth.tx.send(pack(&AuthResponse { auth_type, secret, username, expire_at: None })).await.unwrap();
    };
    let (done, ()) = tokio::join!(transfer(&node, &source, &destination, "progress"), answering);
    done.unwrap();
    let mut events = Vec::new();
    while let Some(news) = receive::<ProgressMessage>(&mut progress).await {
        events.push(news.event);
    }
    assert_eq!(events, ["downloading", "complete"]);
    let pull = memory.pulls.lock().unwrap().pop().unwrap();
    assert_eq!((pull.reference.as_str(), pull.name.as_str()), ("docker.io/library/x:1", "mine"));
    let credentials = Credentials { username: "me".into(), secret: "secret".into(), registry_token: String::new() };
    assert_eq!(pull.registry.credentials, Some(credentials));
    assert_eq!((pull.registry.config_paths, pull.registry.plain_http), (vec!["/certs".into()], true));
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_come_and_go_in_streams() {
    let (node, memory) = node().await;
    let remote = node.remote();
    let data: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();

    let mut import = open(&remote, "import").await;
    let source = ImageImportStream { stream: "import".to_owned(), ..ImageImportStream::default() };
    let sending = async {
        let (mut granted, mut rest) = (0, &data[..]);
        while !rest.is_empty() {
            while granted == 0 {
                granted = receive::<WindowUpdate>(&mut import).await.unwrap().update as usize;
            }
            let (part, more) = rest.split_at(granted.min(30_000).min(rest.len()));
            import.tx.send(pack(&Data { data: Bytes::copy_from_slice(part) })).await.unwrap();
            (granted, rest) = (granted - part.len(), more);
        }
        drop(import);
    };
    let store = ImageStore::default();
    let (done, ()) = tokio::join!(transfer(&node, &source, &store, ""), sending);
    done.unwrap();
    assert!(*memory.archive.lock().unwrap() == data);

    let mut export = open(&remote, "export").await;
    let destination = ImageExportStream { stream: "export".to_owned(), ..ImageExportStream::default() };
    let receiving = async {
        let mut got = Vec::new();
        export.tx.send(pack(&WindowUpdate { update: 65_536 })).await.unwrap();
        while let Some(part) = receive::<Data>(&mut export).await {
            got.extend_from_slice(&part.data);
            let update = part.data.len() as i32;
            let _ = export.tx.send(pack(&WindowUpdate { update })).await; // the sender may be done
        }
        got
    };
    let (done, got) = tokio::join!(transfer(&node, &store, &destination, ""), receiving);
    done.unwrap();
    assert!(got == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_transferred_is_refused() {
    let (node, _) = node().await;
    let store = |name: &str| ImageStore { name: name.to_owned(), ..ImageStore::default() };
    transfer(&node, &store("a"), &store("b"), "").await.unwrap();
    let missing = transfer(&node, &store("c"), &store("b"), "").await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (tonic::Code::NotFound, "image \"c\""));
    let odd = transfer(&node, &OciRegistry::default(), &OciRegistry::default(), "").await.unwrap_err();
    let kind = "containerd.types.transfer.OCIRegistry";
    assert_eq!(
        (odd.code(), odd.message()),
        (tonic::Code::Unimplemented, &*format!("transfer from {kind:?} to {kind:?}"))
    );
    let nameless = transfer(&node, &OciRegistry::default(), &store("a"), "").await.unwrap_err();
    assert_eq!(nameless.message(), "reference must not be empty");
    assert_eq!(convert::error::code_read(nameless.code()), Code::InvalidArgument);
}
