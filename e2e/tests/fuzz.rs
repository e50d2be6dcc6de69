//! Every field of every mutating CRI request, one at a time, changed to something nasty: the daemon answers in bounded time,
//! says what is wrong, and a request that it refuses leaves nothing; what it accepts is removed cleanly.
//!
//! A seed orders the mutants and a budget of seconds bounds each kind of request: `KEVEL_FUZZ_SEED`, `KEVEL_FUZZ_SECONDS`.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{collections::BTreeMap, time::Duration};

use kevel_e2e::{Client, Faults, Ledger, Mutant, Node, Registry, Shapes};
use kevel_proto::runtime::v1 as cri;
use prost::{Message, Name};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

/// No answer takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// Refused requests between two looks at everything that the node has.
const LOOK: usize = 40;

struct Setup {
    registry: Registry,
    node: Node,
    faults: Faults,
    pods: Client,
    shapes: Shapes,
    /// Answers that were refusals, by code and field.
    refused: BTreeMap<String, String>,
    wrong: Vec<String>,
}

async fn setup() -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let faults = Faults::new().unwrap();
    let options = registry.node_options();
    let mut node = faults.node(options, "", "").unwrap();
    node.launch().unwrap();
    let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
    let shapes = Shapes::new().unwrap();
    Setup { registry, node, faults, pods, shapes, refused: BTreeMap::new(), wrong: Vec::new() }
}

#[expect(clippy::disallowed_methods, reason = "who runs the test for longer says so by a variable")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for end in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(end, usize::try_from(state % (end as u64 + 1)).unwrap());
    }
}

/// What is wrong with a refusal: it has to be the request's fault, and say of which field.
fn flaw(path: &str, status: &Status) -> Option<String> {
    let (code, message) = (status.code(), status.message());
    let named = || path.split('.').any(|part| message.contains(part));
    match code {
        Code::InvalidArgument if !named() => Some(format!("{message:?} names no field")),
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists => None,
        // The runtime refuses what the kernel does not take, the registry what it does not have.
        Code::Unknown if message.contains("OCI runtime") || message.contains("runc") => None,
        Code::Unimplemented | Code::PermissionDenied | Code::OutOfRange | Code::ResourceExhausted => None,
        _ => Some(format!("{code:?} {message:?}")),
    }
}

impl Setup {
    /// Sends mutants of a request for as long as there is time. `call` answers whether it was accepted, and has removed
    /// what it made by then.
    async fn attack<T>(&mut self, base: T, share: u64, call: impl AsyncFn(&Client, T) -> Result<(), Status>)
    where
        T: Message + Name + Default,
    {
        let mut mutants = self.shapes.mutants(&base).unwrap();
        shuffle(&mut mutants, number("KEVEL_FUZZ_SEED", 0x006b_6576_656c));
        let (all, mut sent, mut accepted) = (mutants.len(), 0, 0);
        let before = Ledger::of(&self.node, &self.faults).unwrap();
        let end = Instant::now()
            + Duration::from_secs(number("KEVEL_FUZZ_SECONDS", 50)) * u32::try_from(share).unwrap() / 100;
        let mut recent = Vec::new();
        for Mutant { path, what, request } in mutants {
            if Instant::now() > end {
                break;
            }
            sent += 1;
            let name = format!("{} {path}: {what}", T::NAME);
            match tokio::time::timeout(LIMIT, call(&self.pods, request)).await {
                Err(_) => self.wrong.push(format!("{name}: no answer within {LIMIT:?}")),
                Ok(Ok(())) => accepted += 1,
                Ok(Err(status)) => {
                    if let Some(flaw) = flaw(&path, &status) {
                        self.wrong.push(format!("{name}: {flaw}"));
                    }
                    self.refused.insert(name.clone(), format!("{:?} {}", status.code(), status.message()));
                }
            }
            recent.push(name);
            if recent.len() == LOOK {
                self.look(&before, &recent);
                recent.clear();
            }
        }
        self.look(&before, &recent);
        assert!(sent > 0);
        eprintln!("{}: {sent} of {all} mutants sent, {accepted} accepted", T::NAME);
    }

    fn look(&mut self, before: &Ledger, recent: &[String]) {
        if let Err(error) = before.wait(&self.node, &self.faults) {
            self.wrong.push(format!("one of {recent:#?} left something: {error:?}"));
        }
        assert!(!self.node.log().contains("panicked"), "one of {recent:#?}: {}", self.node.log());
    }

    /// A pod with something in every part.
    fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        let mut config = self.pods.config(name);
        let mut linux = config.linux.take().unwrap();
        linux.security_context = Some(cri::LinuxSandboxSecurityContext {
            // No network: the requests that are accepted cost less.
            namespace_options: Some(cri::NamespaceOption {
                network: cri::NamespaceMode::Node as i32,
                ..Default::default()
            }),
            supplemental_groups: vec![7],
            run_as_user: Some(cri::Int64Value { value: 1000 }),
            run_as_group: Some(cri::Int64Value { value: 1000 }),
            ..Default::default()
        });
        linux.resources = Some(cri::LinuxContainerResources { cpu_shares: 2, ..Default::default() });
        config.linux = Some(linux);
        config.labels = [("label".to_owned(), "value".to_owned())].into();
        config.annotations = [("annotation".to_owned(), "value".to_owned())].into();
        config.dns_config = Some(cri::DnsConfig { servers: vec!["192.0.2.1".to_owned()], ..Default::default() });
        config
    }

    fn container(&self) -> cri::ContainerConfig {
        let mut config = self.pods.container("fuzzed", "exec sleep 1000");
        config.envs = vec![cri::KeyValue { key: "NAME".to_owned(), value: b"value".to_vec() }];
        config.mounts = vec![cri::Mount {
            container_path: "/data".to_owned(),
            host_path: self.node.path("volume").display().to_string(),
            ..Default::default()
        }];
        let device = "/dev/null".to_owned();
        config.devices =
            vec![cri::Device { container_path: device.clone(), host_path: device, permissions: "rw".to_owned() }];
        config.linux = Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources { cpu_shares: 2, ..Default::default() }),
            security_context: Some(cri::LinuxContainerSecurityContext::default()),
        });
        config
    }
}

async fn run_and_remove(pods: &Client, request: cri::RunPodSandboxRequest) -> Result<(), Status> {
    let answer = pods.runtime.clone().run_pod_sandbox(Request::new(request)).await?;
    pods.remove_pod(&answer.into_inner().pod_sandbox_id).await.unwrap();
    Ok(())
}

/// A container that is made is started, too: what is wrong with it may be found only then.
async fn make_start_and_remove(pods: &Client, request: cri::CreateContainerRequest) -> Result<(), Status> {
    let answer = pods.runtime.clone().create_container(Request::new(request)).await?;
    let container_id = answer.into_inner().container_id;
    let started = pods.start(&container_id, None).await;
    pods.runtime.clone().remove_container(cri::RemoveContainerRequest { container_id }).await.unwrap();
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_of_a_request_breaks_the_daemon() {
    let mut setup = setup().await;
    std::fs::create_dir(setup.node.path("volume")).unwrap();
    let config = setup.pod("fuzzed");
    // What is made once and stays: the parent cgroup, the directory of logs.
    run_and_remove(&setup.pods, cri::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() })
        .await
        .unwrap();
    let request = cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
    setup.attack(request, 30, run_and_remove).await;

    let pod = setup.pods.run(setup.pod("steady"), "").await.unwrap();
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(setup.container()),
        sandbox_config: Some(setup.pod("steady")),
    };
    setup.attack(request, 40, make_start_and_remove).await;

    let container = setup.pods.create(&pod, "steady", setup.pods.container("steady", "exec sleep 1000")).await.unwrap();
    setup.pods.start(&container, None).await.unwrap();
    let limits = cri::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
    let request = cri::UpdateContainerResourcesRequest {
        container_id: container.clone(),
        linux: Some(limits.clone()),
        ..Default::default()
    };
    setup
        .attack(request, 10, async |pods, request| {
            let had = pods.status(&container).await?.resources;
            let answer = pods.runtime.clone().update_container_resources(Request::new(request)).await;
            if answer.is_err() {
                assert_eq!(pods.status(&container).await?.resources, had, "refused, and changed");
            }
            answer.map(drop)
        })
        .await;
    let request = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        overhead: Some(limits.clone()),
        resources: Some(limits),
    };
    setup
        .attack(request, 5, async |pods, request| {
            pods.runtime.clone().update_pod_sandbox_resources(Request::new(request)).await.map(drop)
        })
        .await;
    let network_config = Some(cri::NetworkConfig { pod_cidr: setup.node.subnet().to_owned() });
    let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) };
    setup
        .attack(request, 3, async |pods, request| {
            pods.runtime.clone().update_runtime_config(Request::new(request)).await.map(drop)
        })
        .await;
    let request = cri::ExecSyncRequest { container_id: container.clone(), cmd: vec!["true".to_owned()], timeout: 5 };
    setup
        .attack(request, 5, async |pods, request| pods.runtime.clone().exec_sync(Request::new(request)).await.map(drop))
        .await;
    let (_, images) = setup.node.cri().await.unwrap();
    let image = cri::ImageSpec { image: setup.registry.reference("pause").to_owned(), ..Default::default() };
    let request =
        cri::PullImageRequest { image: Some(image), sandbox_config: Some(setup.pod("fuzzed")), ..Default::default() };
    setup.attack(request, 7, async |_, request| images.clone().pull_image(Request::new(request)).await.map(drop)).await;

    assert_eq!(setup.pods.status(&container).await.unwrap().state(), cri::ContainerState::ContainerRunning);
    setup.pods.remove_pod(&pod).await.unwrap();
    for (name, answer) in &setup.refused {
        eprintln!("{}: {}", name.chars().take(200).collect::<String>(), answer.chars().take(300).collect::<String>());
    }
    assert!(setup.wrong.is_empty(), "{:#?}", setup.wrong);
}
