//! Images over CRI: pulls that outlive their callers, content that a crash took, snapshotters per handler, removal.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{fs, os::unix::fs::PermissionsExt as _};

use kevel_e2e::{Node, NodeOptions, Registry, eventually, patience, until};
use kevel_proto::runtime::v1 as cri;
use serde_json::Value;
use tonic::transport::Channel;

type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;
type Images = cri::image_service_client::ImageServiceClient<Channel>;

struct Setup {
    registry: Registry,
    node: Node,
    runtime: Runtime,
    images: Images,
}

async fn setup(images: &[&str], config: &str) -> Setup {
    let registry = Registry::start(images).unwrap();
    let options = NodeOptions { config: config.to_owned(), ..registry.node_options() };
    let node = Node::start(&options).unwrap();
    let (runtime, images) = node.cri().await.unwrap();
    Setup { registry, node, runtime, images }
}

impl Setup {
    fn spec(&self, name: &str) -> Option<cri::ImageSpec> {
        Some(cri::ImageSpec { image: self.registry.reference(name).to_owned(), ..Default::default() })
    }

    async fn pull(&mut self, name: &str) -> String {
        let request = cri::PullImageRequest { image: self.spec(name), ..Default::default() };
        self.images.pull_image(request).await.unwrap().into_inner().image_ref
    }

    async fn present(&mut self, name: &str) -> Option<cri::Image> {
        let request = cri::ImageStatusRequest { image: self.spec(name), verbose: false };
        self.images.image_status(request).await.unwrap().into_inner().image
    }

    /// Bytes of images, as the kubelet counts them.
    async fn used(&mut self) -> u64 {
        let info = self.images.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner();
        info.image_filesystems[0].used_bytes.as_ref().unwrap().value
    }

    async fn pulls(&mut self) -> Vec<Value> {
        let info = self.runtime.status(cri::StatusRequest { verbose: true }).await.unwrap().into_inner().info;
        serde_json::from_str(&info["imagePulls"]).unwrap()
    }

    /// Waits until `holds` is true of the pulls under way.
    async fn until_pulls(&mut self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        eventually(what, async || holds(&self.pulls().await)).await;
    }

    /// From now on the node's registry is at another address.
    fn lead_to(&self, address: &str) {
        let host = self.registry.reference("pause").split('/').next().unwrap();
        let places = [host.to_owned(), host.replace(':', "_"), host.replace(':', "_") + "_"];
        let dir = places.iter().map(|name| std::path::Path::new(self.registry.hosts_dir()).join(name));
        let dir = dir.into_iter().find(|dir| dir.is_dir()).unwrap();
        fs::write(dir.join("hosts.toml"), format!("server = \"http://{address}\"\n")).unwrap();
    }

    fn blob(&self, digest: &str) -> std::path::PathBuf {
        self.node.path("root/io.containerd.content.v1.content/blobs").join(digest.replace(':', "/"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_outlives_its_caller_and_is_shown() {
    // A verifier holds the pull up for as long as the test likes.
    let gate = tempfile::tempdir().unwrap();
    let (bin, open, asked) = (gate.path().join("bin"), gate.path().join("open"), gate.path().join("asked"));
    fs::create_dir(&bin).unwrap();
    let script =
        format!("#!/bin/sh\necho x >> {}\nwhile [ ! -e {} ]; do sleep 0.05; done\n", asked.display(), open.display());
    fs::write(bin.join("gate"), script).unwrap();
    fs::set_permissions(bin.join("gate"), fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!(
        "[plugins.\"io.containerd.image-verifier.v1.bindir\"]\nbin_dir = {bin:?}\nper_verifier_timeout = \"2m\"\n"
    );
    let mut setup = setup(&["layers", "pause"], &config).await;
    let request = cri::PullImageRequest { image: setup.spec("layers"), ..Default::default() };
    let (mut first, again) = (setup.images.clone(), request.clone());
    let first = tokio::spawn(async move { first.pull_image(again).await });
    setup.until_pulls("the pull is shown", |pulls| pulls.len() == 1).await;
    assert_eq!(setup.pulls().await[0]["image"], setup.registry.reference("layers"));
    until("the verifier is asked", || asked.exists().then_some(())).unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // A retry joins what runs: it is sent before the status calls, whose answers show that it has arrived.
    let mut second = setup.images.clone();
    let mut second = std::pin::pin!(second.pull_image(request));
    tokio::select! {
        biased;
        answer = &mut second => panic!("answered while the verifier thinks: {answer:?}"),
        () = setup.until_pulls("the pull goes on", |pulls| pulls.len() == 1) => {}
    }
    tokio::select! {
        biased;
        answer = &mut second => panic!("answered while the verifier thinks: {answer:?}"),
        () = setup.until_pulls("there is still one pull", |pulls| pulls.len() == 1) => {}
    }
    fs::write(&open, "").unwrap();
    let image = second.await.unwrap().into_inner().image_ref;
    assert_eq!(setup.present("layers").await.unwrap().id, image);
    assert_eq!(fs::read_to_string(&asked).unwrap(), "x\n", "one pull, asked about once");
    assert!(setup.pulls().await.is_empty());
    // And one that nobody waits for at all ends by itself.
    let mut alone = setup.images.clone();
    fs::remove_file(&open).unwrap();
    let request = cri::PullImageRequest { image: setup.spec("pause"), ..Default::default() };
    let alone = tokio::spawn(async move { alone.pull_image(request).await });
    setup.until_pulls("the pull is shown", |pulls| pulls.len() == 1).await;
    alone.abort();
    fs::write(&open, "").unwrap();
    setup.until_pulls("the pull has ended", <[Value]>::is_empty).await;
    assert!(setup.present("pause").await.unwrap().pinned);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_with_another_snapshotter_gets_what_a_crash_took() {
    let config = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\n\
        runtime_type = \"io.containerd.runc.v2\"\n\
        [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.other]\n\
        runtime_type = \"io.containerd.runc.v2\"\nsnapshotter = \"native\"\n";
    let mut setup = setup(&["busybox", "pause"], config).await;
    setup.pull("busybox").await;
    let layer = setup.registry.image("busybox")["layers"][0].clone();
    let digest = layer["digest"].as_str().or(layer.as_str()).unwrap().to_owned();
    setup.node.kill().unwrap();
    fs::remove_file(setup.blob(&digest)).unwrap();
    setup.node.launch().unwrap();
    (setup.runtime, setup.images) = setup.node.cri().await.unwrap();

    let metadata = cri::PodSandboxMetadata {
        name: "other".to_owned(),
        uid: "uid".to_owned(),
        namespace: "default".to_owned(),
        attempt: 0,
    };
    let pod = cri::PodSandboxConfig {
        metadata: Some(metadata),
        log_directory: setup.node.path("logs").display().to_string(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}", setup.node.mark()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = cri::RunPodSandboxRequest { config: Some(pod.clone()), runtime_handler: "other".to_owned() };
    let pod_sandbox_id = setup.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: setup.spec("busybox"),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        log_path: "c.log".to_owned(),
        ..Default::default()
    };
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod),
    };
    let container_id = setup.runtime.create_container(request).await.unwrap().into_inner().container_id;
    setup.runtime.start_container(cri::StartContainerRequest { container_id }).await.unwrap();
    assert!(setup.blob(&digest).exists(), "the layer was fetched again");
    let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
    setup.runtime.stop_pod_sandbox(stop).await.unwrap();
    setup.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
    setup.node.remove_parent_cgroup();
    setup.node.assert_no_leaks().unwrap();
}

/// A registry that has nothing; its address.
fn empty_registry() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            while std::io::BufRead::read_line(&mut reader, &mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let _ = std::io::Write::write_all(
                &mut stream,
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_again_is_gone_for_good() {
    let mut setup = setup(&["busybox", "pause"], "").await;
    let id = setup.pull("busybox").await;
    let image = setup.registry.image("busybox").clone();
    let digest = image["layers"][0]["digest"].as_str().or(image["layers"][0].as_str()).unwrap().to_owned();
    // Neither its layer nor what was unpacked of it is there any more.
    let snapshots = setup.node.ctr(&["-n", "k8s.io", "snapshots", "ls"]).unwrap();
    let chain = snapshots.lines().find(|line| line.starts_with("sha256:")).unwrap();
    setup.node.ctr(&["-n", "k8s.io", "snapshots", "rm", chain.split_whitespace().next().unwrap()]).unwrap();
    fs::remove_file(setup.blob(&digest)).unwrap();

    let cgroup_parent = format!("/{}", setup.node.mark());
    let pod = cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: "p".to_owned(),
            uid: "u".to_owned(),
            namespace: "n".to_owned(),
            attempt: 0,
        }),
        linux: Some(cri::LinuxPodSandboxConfig { cgroup_parent, ..Default::default() }),
        ..Default::default()
    };
    let request = cri::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
    let pod_sandbox_id = setup.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: id.clone(), ..Default::default() }),
        ..Default::default()
    };
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod),
    };
    // A registry that does not answer may have it yet.
    setup.lead_to("127.0.0.1:1");
    let error = setup.runtime.create_container(request.clone()).await.unwrap_err();
    assert!(error.message().contains("unpacking image"), "{error}");
    assert_eq!(setup.present("busybox").await.unwrap().id, id);
    // One that does not have it is the end.
    setup.lead_to(&empty_registry().to_string());
    let error = setup.runtime.create_container(request).await.unwrap_err();
    assert!(error.message().contains("unpacking image"), "{error}");
    assert!(setup.present("busybox").await.is_none());
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    (setup.runtime, setup.images) = setup.node.cri().await.unwrap();
    assert!(setup.present("busybox").await.is_none());
    let names = setup.node.ctr(&["-n", "k8s.io", "images", "ls", "-q"]).unwrap();
    assert!(!names.contains("busybox"), "{names}");
    setup.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
    setup.node.remove_parent_cgroup();
    setup.node.assert_no_leaks().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_image_is_gone_at_once_under_all_its_names() {
    let mut setup = setup(&["layers", "pause"], "").await;
    let id = setup.pull("layers").await;
    // A second tag of the same image, made by another client.
    let name = setup.registry.reference("layers").to_owned();
    setup.node.ctr(&["-n", "k8s.io", "images", "tag", &name, "example.com/second:1"]).unwrap();
    let mut tags = Vec::new();
    eventually("both names", async || {
        tags = setup.present("layers").await.unwrap().repo_tags;
        tags.len() == 2
    })
    .await;
    let before = setup.used().await;
    assert!(before > 0);
    let snapshots = setup.node.path("root/io.containerd.snapshotter.v1.overlayfs/snapshots");
    assert!(fs::read_dir(&snapshots).unwrap().count() > 0);
    let image = Some(cri::ImageSpec { image: id, ..Default::default() });
    setup.images.remove_image(cri::RemoveImageRequest { image: image.clone() }).await.unwrap();
    assert!(setup.present("layers").await.is_none());
    let listed = setup.images.list_images(cri::ListImagesRequest::default()).await.unwrap().into_inner().images;
    assert!(listed.is_empty(), "{listed:?}");
    assert_eq!(setup.used().await, 0);
    // Its storage follows by itself.
    until("layers and blobs are freed", || {
        let layers = fs::read_dir(&snapshots).unwrap().count();
        let blobs = fs::read_dir(setup.blob("sha256:")).map_or(0, Iterator::count);
        (layers + blobs == 0).then_some(())
    })
    .unwrap();
    // Once more is no error.
    setup.images.remove_image(cri::RemoveImageRequest { image }).await.unwrap();
}

/// Wherever a kill cuts a pull short: the next daemon serves, the pull that is asked for again succeeds, and the image can be
/// removed with all that it brought.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_a_kill_cuts_short_succeeds_when_it_is_asked_for_again() {
    let mut setup = setup(&["layers", "pause"], "").await;
    for moment in [0, 10, 25, 50, 100, 200] {
        let request = cri::PullImageRequest { image: setup.spec("layers"), ..Default::default() };
        let mut images = setup.images.clone();
        let pull = tokio::spawn(async move { images.pull_image(request).await });
        tokio::time::sleep(patience(moment) / 1000).await;
        setup.node.kill().unwrap();
        let _ = pull.await.unwrap(); // done or broken off, as it came
        setup.node.launch().unwrap();
        (setup.runtime, setup.images) = setup.node.cri().await.unwrap();
        let image = setup.pull("layers").await;
        assert_eq!(setup.present("layers").await.unwrap().id, image, "after {moment} ms");
        // What kept the content of the first attempt goes when the second is done.
        until("the leases to be gone", || {
            setup.node.ctr(&["-n", "k8s.io", "leases", "ls", "-q"]).unwrap().trim().is_empty().then_some(())
        })
        .unwrap();
        let request = cri::RemoveImageRequest { image: setup.spec("layers") };
        setup.images.remove_image(request).await.unwrap();
        assert!(setup.present("layers").await.is_none(), "after {moment} ms");
    }
    setup.node.assert_no_leaks().unwrap();
}
