//! Artifacts (what is in a registry and no image) as volumes of pods.
use std::fs;

use kevel_e2e::{Client, Faults, Ledger, Registry};
use kevel_proto::runtime::v1 as cri;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_volumes() {
    let registry = Registry::start(&["busybox", "pause", "artifact"]).unwrap();
    let faults = Faults::new().unwrap();
    let options = registry.node_options();
    let mut node = faults.node(options, "", "").unwrap();
    node.launch().unwrap();
    let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
    let (_, mut images) = node.cri().await.unwrap();
    let first = pods.run(pods.config("first"), "").await.unwrap();
    pods.remove_pod(&first).await.unwrap();
    let before = Ledger::of(&node, &faults).unwrap();

    // It is pulled, listed, found and sized as an image is; its identifier is that of what it is, as its config says nothing.
    let spec = Some(cri::ImageSpec { image: registry.reference("artifact").to_owned(), ..Default::default() });
    let request = cri::PullImageRequest { image: spec.clone(), ..Default::default() };
    let id = images.pull_image(request).await.unwrap().into_inner().image_ref;
    let request = cri::ImageStatusRequest { image: spec.clone(), verbose: false };
    let image = images.image_status(request).await.unwrap().into_inner().image.unwrap();
    assert_eq!(
        (image.id.as_str(), &image.repo_tags[..]),
        (id.as_str(), &[registry.reference("artifact").to_owned()][..])
    );
    assert!(image.repo_digests[0].ends_with(&format!("@{id}")), "{image:?}");
    assert!(image.size > 24, "{image:?}");
    let list = images.list_images(cri::ListImagesRequest::default()).await.unwrap().into_inner().images;
    assert!(list.contains(&image));

    let pod = pods.run(pods.config("pod"), "").await.unwrap();
    let mut config = pods.container("none", "true");
    config.image.clone_from(&spec);
    let error = pods.create(&pod, "pod", config).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("is an artifact and has no root file system"), "{error}");

    let mount = |sub: &str, at: &str| cri::Mount {
        container_path: at.to_owned(),
        image: spec.clone(),
        image_sub_path: sub.to_owned(),
        readonly: true,
        ..Default::default()
    };
    let script =
        "cat /all/model.txt /all/deep/notes.txt /all/sha256-* /part/notes.txt; ls -l /all/model.txt | cut -c1-10
        echo x 2>/dev/null >/all/model.txt || echo read-only; exec sleep 1000";
    let mut config = pods.container("reader", script);
    config.mounts = vec![mount("", "/all"), mount("deep", "/part")];
    let reader = pods.create(&pod, "pod", config).await.unwrap();
    pods.start(&reader, None).await.unwrap();
    let log = node.path("logs/reader.log");
    let text = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let want = "weights\nnotes\nanonymous\nnotes\n-r--r--r--\nread-only\n";
    kevel_e2e::until("the container to have read it", || {
        (text().lines().count() == want.lines().count()).then_some(())
    })
    .unwrap();
    assert_eq!(text(), want);
    let shown = pods.status(&reader).await.unwrap().mounts;
    assert!(shown.iter().all(|mount| mount.image.as_ref().unwrap().image_ref == id), "{shown:?}");

    // The copy is the pod's: the image may go, the daemon may be killed, and another container gets the same.
    images.remove_image(cri::RemoveImageRequest { image: spec.clone() }).await.unwrap();
    node.kill().unwrap();
    node.launch().unwrap();
    let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
    assert_eq!(pods.status(&reader).await.unwrap().state(), cri::ContainerState::ContainerRunning);
    let mut config = pods.container("late", "true");
    config.mounts = vec![mount("", "/all")];
    let error = pods.create(&pod, "pod", config).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    pods.remove_pod(&pod).await.unwrap();
    before.wait(&node, &faults).unwrap();
}
