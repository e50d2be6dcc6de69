//! A pod in which a container counts, and what is done with it over the CRI.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use kevel_e2e::{Client, Leaks, Ledger, find, run};
use kevel_proto::runtime::v1 as cri;
use tonic::{Request, Status};

use crate::setup::{COUNT, Setup, parse};

/// A pod in which a container counts.
pub(crate) struct Counting {
    pub(crate) setup: Setup,
    pub(crate) pods: Client,
    pub(crate) before: Ledger,
    pub(crate) pod: String,
    pub(crate) id: String,
}

impl Counting {
    pub(crate) async fn new(setup: Setup) -> Self {
        let pods = Client::of(&setup.node, setup.registry.reference("busybox")).await.unwrap();
        let first = pods.run(pods.config("first"), "").await.unwrap();
        pods.remove_pod(&first).await.unwrap();
        let before = Ledger::of(&setup.node, &setup.faults).unwrap();
        let pod = pods.run(pods.config("one"), "").await.unwrap();
        let id = pods.create(&pod, "one", pods.container("counter", COUNT)).await.unwrap();
        pods.start(&id, None).await.unwrap();
        let this = Self { setup, pods, before, pod, id };
        this.shows(&this.id, 1).await;
        this
    }

    /// How far a container has counted, once it is at least so far.
    pub(crate) async fn shows(&self, id: &str, least: u64) -> u64 {
        self.says(id, least).await.0
    }

    /// The same with its word.
    pub(crate) async fn says(&self, id: &str, least: u64) -> (u64, String) {
        let mut shown = None;
        kevel_e2e::eventually("the container to count", async || {
            let cmd = ["cat", "/shown"].map(str::to_owned).to_vec();
            let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 20 };
            let said = self.pods.runtime.clone().exec_sync(request).await;
            shown = said.ok().and_then(|said| parse(&String::from_utf8_lossy(&said.into_inner().stdout)));
            shown.as_ref().is_some_and(|(number, _)| *number >= least)
        })
        .await;
        shown.unwrap()
    }

    /// The first process of a container, on the node.
    pub(crate) async fn pid(&self, id: &str) -> u64 {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let info = self.pods.runtime.clone().container_status(request).await.unwrap().into_inner().info;
        serde_json::from_str::<serde_json::Value>(&info["info"]).unwrap()["pid"].as_u64().unwrap()
    }

    pub(crate) async fn checkpoint(&self, location: &Path, timeout: i64) -> Result<(), Status> {
        let location = location.display().to_string();
        let request = cri::CheckpointContainerRequest { container_id: self.id.clone(), location, timeout };
        self.pods.runtime.clone().checkpoint_container(request).await.map(drop)
    }

    pub(crate) async fn checkpoint_pod(&self, ids: &[&str], to: &Path, limit: Option<Duration>) -> Result<(), Status> {
        let mut request = Request::new(cri::CheckpointPodRequest {
            pod_sandbox_id: self.pod.clone(),
            output_path: to.display().to_string(),
            container_ids: ids.iter().map(|&id| id.to_owned()).collect(),
            ..Default::default()
        });
        limit.inspect(|limit| request.set_timeout(*limit));
        self.pods.runtime.clone().checkpoint_pod(request).await.map(drop)
    }

    /// A restored pod of that name, with what its containers are called and their ids.
    pub(crate) async fn restore_pod(
        &self,
        from: &Path,
        name: &str,
        configs: Vec<cri::ContainerConfig>,
    ) -> Result<(String, Vec<(String, String)>), Status> {
        let request = cri::RestorePodRequest {
            checkpoint_path: from.display().to_string(),
            config: Some(self.pods.config(name)),
            container_configs: configs,
            ..Default::default()
        };
        let made = self.pods.runtime.clone().restore_pod(request).await?.into_inner();
        let restored = made.restored_containers.into_iter().map(|one| (one.name, one.container_id));
        Ok((made.pod_sandbox_id, restored.collect()))
    }

    /// CreateContainer; its id.
    pub(crate) async fn created(&self, pod: &str, config: &cri::ContainerConfig) -> Result<String, Status> {
        self.pods.create(pod, "two", config.clone()).await
    }

    /// A container that is made from an archive.
    pub(crate) fn from(&self, archive: &Path) -> cri::ContainerConfig {
        let mut config = self.pods.container("counter", COUNT);
        config.image = Some(cri::ImageSpec { image: archive.display().to_string(), ..Default::default() });
        config
    }

    /// A directory for archives, with nothing in it.
    pub(crate) fn outputs(&self, name: &str) -> PathBuf {
        let dir = self.setup.node.path(name);
        fs::create_dir(&dir).unwrap();
        dir
    }

    /// Processes that make a checkpoint.
    pub(crate) fn at_work(&self) -> Vec<String> {
        let mark = self.setup.faults.path("");
        let mut all = Leaks::of(&mark.display().to_string()).processes;
        all.retain(|line| line.ends_with(" swrk") || line.contains(" checkpoint "));
        all
    }

    /// An image of the registry's form with the files of an archive, and with that annotation; its name.
    pub(crate) fn image(&self, name: &str, archive: &Path, annotation: &str) -> String {
        let (layout, packed) =
            (self.setup.node.path(&format!("layout-{name}")), self.setup.node.path(&format!("{name}.oci")));
        let (at, from) = (layout.display().to_string(), archive.display().to_string());
        let reference = format!("{at}:latest");
        let umoci = |arguments: &[&str]| {
            run(&find("umoci").unwrap(), arguments).unwrap().ok().unwrap();
        };
        umoci(&["init", "--layout", &at]);
        umoci(&["new", "--image", &reference]);
        umoci(&["raw", "add-layer", "--image", &reference, &from]);
        umoci(&["config", "--image", &reference, "--manifest.annotation", annotation]);
        run(Path::new("/bin/tar"), &["-C", &at, "-cf", packed.to_str().unwrap(), "."]).unwrap().ok().unwrap();
        let base = format!("checkpoint.test/{name}");
        let import = ["-n", "k8s.io", "images", "import", "--local", "--base-name", &base, packed.to_str().unwrap()];
        self.setup.node.ctr(&import).unwrap();
        format!("{base}:latest")
    }

    pub(crate) fn remove_image(&self, name: &str) {
        self.setup.node.ctr(&["-n", "k8s.io", "images", "rm", "--sync", name]).unwrap();
    }

    /// Starts the daemon again.
    pub(crate) async fn launch(&mut self) {
        self.setup.node.launch().unwrap();
        self.pods = Client::of(&self.setup.node, self.setup.registry.reference("busybox")).await.unwrap();
    }

    /// What is left of checkpoints of the container beside what was asked for.
    pub(crate) fn left(&self) -> Vec<String> {
        let root = self.setup.node.path("root/io.containerd.grpc.v1.cri/containers").join(&self.id);
        let state = self.setup.node.path("state/io.containerd.grpc.v1.cri/containers").join(&self.id);
        let names = [root.join("checkpoint"), root.join("restore"), root.join("partial"), state.join("frozen")];
        names.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
    }

    pub(crate) async fn end(self, pods: &[&str]) {
        for pod in pods {
            self.pods.remove_pod(pod).await.unwrap();
        }
        self.pods.remove_pod(&self.pod).await.unwrap();
        self.before.wait(&self.setup.node, &self.setup.faults).unwrap();
    }
}
