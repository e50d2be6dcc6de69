//! RunPodSandbox: plan, reserve, do, publish.

use std::{path::PathBuf, sync::Arc, time::Instant};

use futures::FutureExt as _;
use kevel_contract::sandbox::{Create, Started};
use kevel_cri_network::{Netns, PodNetworkStatus, netns};
use kevel_cri_nri::Entered;
use kevel_model::{Any, Error, Result};
use kevel_proto::{
    any,
    runtime::v1::{NamespaceMode, PodSandboxConfig, RunPodSandboxRequest, RunPodSandboxResponse},
};
use prost::Message as _;
use tonic::Status;

use super::network_error;
use crate::{
    answer::status,
    check,
    config::Handler,
    counters::NetworkCall,
    files::{self, SandboxFiles, blocking},
    identity,
    index::Pod,
    intent::Intent,
    operation::stage,
    record::{Phase, SandboxRecord, Stored},
    server::Server,
    translate,
    undo::Undo,
    userns::Ids,
};

impl Server {
    /// Makes and starts a sandbox. A retry joins the operation that runs, or gets the sandbox that it made.
    pub(crate) async fn run_pod_sandbox(
        self: &Arc<Self>,
        mut request: RunPodSandboxRequest,
    ) -> Result<RunPodSandboxResponse, Status> {
        let plan = || -> Result<(String, String)> {
            let config = check::sandbox_config(request.config.as_ref())?;
            let name = handler_of(config, &request.runtime_handler)?;
            let handler = self.settings.handler(name)?;
            if Ids::of_pod(config).is_some() && self.lacks_user_namespaces(&handler.name) {
                let field = "config.linux.security_context.namespace_options.userns_options";
                return Err(Error::failed_precondition(format!(
                    "{field}: handler {} has no user namespaces with id-mapped mounts",
                    handler.name
                )));
            }
            Ok((identity::pod_name(&config.metadata.clone().unwrap_or_default()), name.to_owned()))
        };
        let (name, handler) = plan().map_err(|error| status(&error))?;
        request.runtime_handler = handler;
        let print = request.encode_to_vec();
        let server = self.clone();
        let key = format!("run pod sandbox {name}");
        let work = || async move { make(&server, request, name).await };
        let pod_sandbox_id = self.operations.run(key, print, work).await?;
        Ok(RunPodSandboxResponse { pod_sandbox_id })
    }
}

/// The handler of pods that say by this annotation that nobody trusts them.
const UNTRUSTED: &str = "untrusted";
const UNTRUSTED_ANNOTATION: &str = "io.kubernetes.cri.untrusted-workload";

/// The handler of the request, or the one for pods that are not trusted, which may not see the node.
fn handler_of<'a>(config: &PodSandboxConfig, asked: &'a str) -> Result<&'a str> {
    if config.annotations.get(UNTRUSTED_ANNOTATION).is_none_or(|value| value != "true") {
        return Ok(asked);
    }
    let field = format!("config.annotations[{UNTRUSTED_ANNOTATION}]");
    if !asked.is_empty() && asked != UNTRUSTED {
        return Err(Error::invalid_argument(format!("{field}: beside runtime_handler {asked:?}")));
    }
    let options = translate::security(config).namespace_options.unwrap_or_default();
    if [options.network, options.pid, options.ipc].contains(&(NamespaceMode::Node as i32)) {
        return Err(Error::invalid_argument(format!("{field}: the pod has a namespace of the node's")));
    }
    Ok(UNTRUSTED)
}

async fn make(server: &Arc<Server>, request: RunPodSandboxRequest, name: String) -> Result<String> {
    let config = request.config.unwrap_or_default();
    // The rest of one that was never made is being removed and has nothing to do with this one.
    if let Some(pod) = server.index.snapshot().pod_named(&name).filter(|pod| pod.record.phase != Phase::Creating) {
        let same = pod.record.config.0 == config && pod.record.handler == request.runtime_handler;
        if same && pod.ready {
            return Ok(pod.record.id.clone());
        }
        let why = if same { "has ended" } else { "was made from another configuration" };
        return Err(Error::already_exists(format!("pod sandbox {name} exists as {} and {why}", pod.record.id)));
    }
    let handler = server.settings.handler(&request.runtime_handler)?;
    server.controller(handler.sandboxer())?;
    let security = translate::security(&config);
    let mut record = SandboxRecord {
        id: identity::new_id()?,
        name,
        sandboxer: handler.sandboxer().to_owned(),
        handler: request.runtime_handler,
        netns: String::new(),
        network: None,
        overhead: None,
        resources: None,
        phase: Phase::Creating,
        labels: server.settings.selinux.of_pod(security.selinux_options.as_ref())?,
        created_at: identity::now(),
        pid: 0,
        address: String::new(),
        api: 0,
        config: Stored(config),
    };
    let mut undo = Undo::new(server.settings.defer_cleanup);
    match build(server, &handler, &mut record, &mut undo).await {
        Ok(entered) => {
            publish(server, record.clone());
            drop(entered);
            Ok(record.id)
        }
        Err(error) => {
            let left = undo.unwind().await;
            forget(server, record, left).await;
            Err(error)
        }
    }
}

/// After an undo: the record goes when nothing is left, else it stays as a pod that can be stopped and removed.
async fn forget(server: &Arc<Server>, mut record: SandboxRecord, left: Vec<Error>) {
    if left.is_empty() {
        match server.sandboxes.delete(&server.scope, &record.id).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(sandbox = record.id, error = error.chain(), "record of a failed sandbox is left");
            }
            _ => return server.settings.selinux.release(&record.labels),
        }
    }
    record.phase = Phase::Creating;
    let _ = server.save_sandbox(&record).await;
    let id = record.id.clone();
    let mut pod = Pod::new(record);
    pod.exited_at = identity::now();
    server.index.put_pod(pod);
    let why = left.first().map_or_else(|| "its record could not be removed".to_owned(), Error::chain);
    server.finish_later(&id, Intent::Remove, &Error::internal(why));
}

/// Makes the sandbox. No plugin of NRI's joins until the answer is dropped, which is when the pod can be seen.
async fn build(
    server: &Arc<Server>,
    handler: &Handler,
    record: &mut SandboxRecord,
    undo: &mut Undo,
) -> Result<Entered> {
    let options = translate::security(&record.config).namespace_options.unwrap_or_default();
    stage("writing the record");
    // On record before it is made, or a crash between the two would leave a namespace that nobody knows.
    let netns = match options.network == NamespaceMode::Node as i32 {
        true => None,
        false => Some(plan_namespace(server)?),
    };
    if let Some(netns) = &netns {
        record.netns = netns.path().to_string_lossy().into_owned();
    }
    server.sandboxes.create(&server.scope, server.sandbox(record)?).await?;
    let mut user = None;
    if let Some(netns) = netns {
        stage("making the network namespace");
        if let Some(ids) = Ids::of_pod(&record.config) {
            user = Some(ids.namespace().await?);
        }
        // Owned by the pod's user namespace if it has one.
        let origin = user.as_ref().map_or(netns::Origin::New, |user| netns::Origin::Existing(user.network()));
        let made = netns.make(&[], origin).await;
        made.map_err(|error| network_error("making a network namespace".to_owned(), &error))?;
        undo.push("removing the network namespace", async move {
            netns.remove().await.map_err(|error| network_error("network namespace".to_owned(), &error))
        });
    }
    stage("making files");
    let content = SandboxFiles {
        hostname: record.config.hostname.clone(),
        resolv_conf: translate::resolv_conf(&record.config),
        shm: options.ipc != NamespaceMode::Node as i32,
    };
    let (dirs, id) = (server.settings.files.clone(), record.id.clone());
    undo.push("removing files", blocking(move || files::remove_sandbox(&dirs, &id)));
    let (dirs, id) = (server.settings.files.clone(), record.id.clone());
    let made = blocking(move || {
        files::make_sandbox(&dirs, &id, &content)?;
        user.map_or(Ok(()), |user| files::pin(&user.user(), &dirs.user_namespace(&id)))
    });
    made.await?;
    // Neither is cancelled by the other's failure: each is undone as a whole.
    let began = Instant::now();
    stage("attaching the networks and making the sandbox");
    let network = connect(server, record).inspect(|_| stage("making the sandbox"));
    let early = starts_without_network(handler);
    let sandbox = async {
        create(server, record).await?;
        if early { start(server, handler, record).await.map(Some) } else { Ok(None) }
    };
    let (network, sandbox) = tokio::join!(network, sandbox.inspect(|_| stage("attaching the networks")));
    undo_both(server, record, undo);
    record.network = network?;
    let started = match sandbox? {
        Some(started) => started,
        None => {
            stage("starting the sandbox");
            start(server, handler, record).await?
        }
    };
    let timer = server.counters.sandbox_runtime_create.with_label_values(&[handler.runtime.name.as_str()]);
    timer.observe(began.elapsed().as_secs_f64());
    (record.pid, record.address, record.api) = (started.pid, started.address, started.version);
    let entered = server.nri.enter().await;
    tell_plugins(server, record, undo).await?;
    record.phase = Phase::Ready;
    server.save_sandbox(record).await?;
    Ok(entered)
}

async fn tell_plugins(server: &Arc<Server>, record: &SandboxRecord, undo: &mut Undo) -> Result<()> {
    server.nri.run_pod(&record.id, server.describe_pod(record)).await?;
    let (of, record) = (server.clone(), record.clone());
    undo.push("telling NRI plugins", async move {
        of.nri.undo_pod(&record.id, async { Some(of.describe_pod(&record).await) }).await;
        Ok(())
    });
    Ok(())
}

/// Whether a handler's sandbox may start while its network is being made. A pause process that runc starts joins the
/// namespace and does not look into it; hypervisors and other kernels take over what interfaces they find, and hooks of a
/// spec of the operator's may want them.
fn starts_without_network(handler: &Handler) -> bool {
    handler.is_runc() && handler.sandboxer() == "podsandbox" && handler.base.is_none()
}

fn undo_both(server: &Arc<Server>, record: &SandboxRecord, undo: &mut Undo) {
    let (one, other) = (server.clone(), server.clone());
    let (mut detached, shut) = (record.clone(), record.clone());
    detached.network = None;
    undo.push("detaching the networks", async move { one.disconnect(&detached).await });
    undo.push("removing the sandbox", async move {
        other.controller(&shut.sandboxer)?.shutdown(&other.scope, &shut.id).await
    });
}

fn plan_namespace(server: &Server) -> Result<Netns> {
    let under_state = server.settings.config.netns_mounts_under_state_dir;
    let dir = if under_state { server.settings.files.netns() } else { PathBuf::from(netns::DEFAULT_DIR) };
    Netns::plan(&dir).map_err(|error| network_error("naming a network namespace".to_owned(), &error))
}

async fn connect(server: &Server, record: &SandboxRecord) -> Result<Option<PodNetworkStatus>> {
    if record.host_network() {
        return Ok(None);
    }
    let pod = translate::network(&record.id, &record.config, &record.netns)?;
    let attached = server.counters.network(NetworkCall::SetUp, server.network(&record.handler)?.attach(&pod)).await;
    attached.map(Some).map_err(|error| network_error(format!("attaching sandbox {}", record.id), &error))
}

async fn create(server: &Server, record: &SandboxRecord) -> Result<()> {
    let options = any::pack(&record.config.0);
    let create = Create {
        sandbox: server.sandbox(record)?,
        rootfs: Vec::new(),
        options: Some(Any::new(options.type_url, options.value)),
        netns_path: record.netns.clone(),
        annotations: record.config.annotations.clone().into_iter().collect(),
    };
    let controller = server.controller(&record.sandboxer)?;
    server.bounded("creating a sandbox", controller.create(&server.scope, create)).await
}

async fn start(server: &Server, handler: &Handler, record: &SandboxRecord) -> Result<Started> {
    let controller = server.controller(&record.sandboxer)?;
    let started = server.bounded("starting a sandbox", controller.start(&server.scope, &record.id)).await;
    started.map_err(|error| error.context(format!("starting sandbox {} with handler {}", record.id, handler.name)))
}

fn publish(server: &Arc<Server>, record: SandboxRecord) {
    let id = record.id.clone();
    server.index.announce_pod(Pod::new(record));
    server.watch_sandbox(id);
}
