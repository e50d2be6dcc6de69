//! Runs the first pod of a node over CRI and shows what it does: `quickpod SOCKET LOG_DIRECTORY IMAGE` leaves it running,
//! `quickpod --down SOCKET` removes every pod.
//!
//! `hack/quickstart` calls it; it is a plain CRI client, as kubelet is.
#![expect(clippy::print_stdout, reason = "what it shows is what it is for")]

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use kevel_proto::runtime::v1 as cri;
use tonic::transport::{Channel, Endpoint};

type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;
type Images = cri::image_service_client::ImageServiceClient<Channel>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--down", socket] => down(socket).await,
        [socket, logs, image] => show(socket, logs, image).await,
        _ => {
            eprintln!("usage: quickpod SOCKET LOG_DIRECTORY IMAGE | quickpod --down SOCKET");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickpod: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn show(socket: &str, logs: &str, image: &str) -> anyhow::Result<()> {
    let channel = connect(socket).await?;
    let (mut runtime, mut images) = (Runtime::new(channel.clone()), Images::new(channel));
    let spec = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
    let pulled = images.pull_image(cri::PullImageRequest { image: Some(spec.clone()), ..Default::default() }).await;
    println!("pulled   {}", pulled.context("pulling the image")?.into_inner().image_ref);

    let config = pod(logs);
    let request = cri::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let id = runtime.run_pod_sandbox(request).await.context("running the pod")?.into_inner().pod_sandbox_id;
    let mut containers = vec![];
    for (name, script) in [
        ("web", "mkdir /www; echo hello from kevel > /www/index.html; exec httpd -f -p 8080 -h /www"),
        ("clock", "while true; do date; sleep 1; done"),
    ] {
        containers.push(start(&mut runtime, &id, &config, &spec, name, script).await?);
    }

    let status = cri::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), ..Default::default() };
    let status = runtime.pod_sandbox_status(status).await?.into_inner().status.context("the pod has no status")?;
    let ip = status.network.map(|network| network.ip).unwrap_or_default();
    println!("pod      {id}");
    println!("pod IP   {ip}");
    exec(&mut runtime, &containers[1], &["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]).await?;
    log(&Path::new(logs).join("clock.log")).await?;
    stats(&mut runtime, &containers[0]).await
}

/// Stops and removes every pod of the node.
async fn down(socket: &str) -> anyhow::Result<()> {
    let mut runtime = Runtime::new(connect(socket).await?);
    let pods = runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await?.into_inner().items;
    for pod in pods {
        let pod_sandbox_id = pod.id;
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        runtime.stop_pod_sandbox(stop).await.context("stopping a pod")?;
        let remove = cri::RemovePodSandboxRequest { pod_sandbox_id };
        runtime.remove_pod_sandbox(remove).await.context("removing a pod")?;
    }
    Ok(())
}

async fn connect(socket: &str) -> anyhow::Result<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://localhost").timeout(Duration::from_secs(120));
    endpoint.connect_with_connector(connector).await.context("connecting to keveld")
}

fn pod(logs: &str) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: "first".to_owned(),
            uid: "quickstart".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: "first".to_owned(),
        log_directory: logs.to_owned(),
        linux: Some(cri::LinuxPodSandboxConfig { cgroup_parent: "/kevel-quickstart".to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

async fn start(
    runtime: &mut Runtime,
    pod: &str,
    sandbox: &cri::PodSandboxConfig,
    image: &cri::ImageSpec,
    name: &str,
    script: &str,
) -> anyhow::Result<String> {
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(image.clone()),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        ..Default::default()
    };
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(config),
        sandbox_config: Some(sandbox.clone()),
    };
    let created = runtime.create_container(request).await.with_context(|| format!("creating {name}"))?;
    let container_id = created.into_inner().container_id;
    let request = cri::StartContainerRequest { container_id: container_id.clone() };
    runtime.start_container(request).await.with_context(|| format!("starting {name}"))?;
    println!("running  {name} {container_id}");
    Ok(container_id)
}

async fn exec(runtime: &mut Runtime, container: &str, command: &[&str]) -> anyhow::Result<()> {
    let request = cri::ExecSyncRequest {
        container_id: container.to_owned(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        timeout: 10,
    };
    let said = runtime.exec_sync(request).await.context("executing in the clock container")?.into_inner();
    println!("exec     exit code {}: {}", said.exit_code, String::from_utf8_lossy(&said.stdout).trim());
    Ok(())
}

async fn log(path: &Path) -> anyhow::Result<()> {
    for _ in 0..100 {
        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
        if let Some(line) = text.lines().next() {
            println!("log      {line}");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("nothing arrived in {}", path.display())
}

async fn stats(runtime: &mut Runtime, container: &str) -> anyhow::Result<()> {
    let request = cri::ContainerStatsRequest { container_id: container.to_owned() };
    let stats = runtime.container_stats(request).await.context("reading statistics")?.into_inner().stats;
    let stats = stats.context("the web container has no statistics")?;
    let memory = stats.memory.and_then(|memory| memory.working_set_bytes).map_or(0, |bytes| bytes.value);
    let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).map_or(0, |time| time.value);
    println!("stats    web uses {} KiB of memory and took {} ms of CPU", memory / 1024, cpu / 1_000_000);
    Ok(())
}
