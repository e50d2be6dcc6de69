//! CreateContainer: plan, reserve, do, publish.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use kevel_contract::container::Container as Entry;
use kevel_cri_nri::Entered;
use kevel_cri_spec::{ContainerInput, Mode, SandboxPaths, Spec};
use kevel_model::{Any, Error, Labels, Result};
use kevel_proto::{
    any::SPEC,
    runtime::v1::{ContainerConfig, CreateContainerRequest, CreateContainerResponse, NamespaceMode},
};
use prost::Message;
use tonic::Status;

use super::{cdi, image_volume, user, volume};
use crate::{
    answer::status,
    apparmor, check,
    checkpoint::restore::Saved,
    config::Handler,
    counters::timed,
    files::{self, blocking},
    identity,
    image::Image,
    index::{Container, Pod},
    operation::stage,
    reach,
    record::{CONTAINER, ContainerRecord, ContainerState, EXTENSION, KIND, Stored, write_state},
    selinux,
    server::Server,
    translate,
    undo::Undo,
    userns::Ids,
};

/// Labels with longer key and value are left out of the container store, which takes no more; CRI answers have them.
const LABEL: usize = 4096;
/// How long labelling the files of volumes may take; there may be millions.
const RELABEL: Duration = Duration::from_secs(600);

impl Server {
    /// Makes a container in a pod. A retry joins the operation that runs, or gets the container that it made.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Status> {
        self.create_container_from(request, None).await
    }

    /// The same from a checkpoint, which is in an archive that the caller names, with the field that it is from, or that
    /// the request has in the place of an image, as an absolute path.
    pub(crate) async fn create_container_from(
        self: &Arc<Self>,
        request: CreateContainerRequest,
        archive: Option<(&'static str, String)>,
    ) -> Result<CreateContainerResponse, Status> {
        let plan = || -> Result<(Arc<Pod>, String)> {
            let config = check::container_config(request.config.as_ref())?;
            cdi::requested(config)?;
            let name = identity::container_name(&config.metadata.clone().unwrap_or_default());
            Ok((self.index.pod(&request.pod_sandbox_id)?, name))
        };
        let (pod, name) = plan().map_err(|error| status(&error))?;
        let mut print = request.config.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        print.extend(archive.iter().flat_map(|(_, path)| path.bytes()));
        let key = format!("create container {name} in {}", pod.record.id);
        let server = self.clone();
        let work = || async move { make(&server, request, &pod.record.id, name, archive).await };
        let container_id = self.operations.run(key, print, work).await?;
        Ok(CreateContainerResponse { container_id })
    }
}

/// A container to be made.
struct Plan<'a> {
    pod: Arc<Pod>,
    handler: &'a Handler,
    image: Arc<Image>,
    /// Images that are volumes, by the mount's place in the request.
    volumes: BTreeMap<usize, Arc<Image>>,
    snapshotter: String,
    /// What it is restored from.
    saved: Option<Saved>,
}

async fn make(
    server: &Arc<Server>,
    request: CreateContainerRequest,
    pod: &str,
    name: String,
    archive: Option<(&'static str, String)>,
) -> Result<String> {
    stage("waiting for other work on the pod");
    let _shared = server.pods.share(pod).await;
    stage("looking for the image");
    let config = request.config.unwrap_or_default();
    let pod = server.index.pod(pod)?;
    if let Some(found) = server.index.snapshot().container_named(&pod.record.id, &name) {
        if found.record.config.0 == config {
            return Ok(found.record.id.clone());
        }
        let id = &found.record.id;
        return Err(Error::already_exists(format!("container {name} exists as {id}, made from another configuration")));
    }
    if !pod.ready {
        return Err(Error::failed_precondition(format!("pod sandbox {} is not running", pod.record.id)));
    }
    let handler = server.settings.handler(&pod.record.handler)?;
    let wanted = config.image.clone().unwrap_or_default().image;
    let (image, saved) = image(server, &handler, &wanted, archive).await?;
    let snapshotter = server.snapshotter_of(&handler);
    server.images.unpacked(&image, &snapshotter).await?;
    let images = image_volume::find(server, &config)?;
    let id = identity::new_id()?;
    let log_path = match (pod.record.config.log_directory.as_str(), config.log_path.as_str()) {
        ("", _) | (_, "") => String::new(),
        (dir, path) => Path::new(dir).join(path).to_string_lossy().into_owned(),
    };
    let record = ContainerRecord {
        name,
        sandbox_id: pod.record.id.clone(),
        image_id: image.id.clone(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        log_path,
        stop_signal: translate::stop_signal(&config, &image.config.stop_signal)?,
        volumes: volumes(server, &id, &config, &image),
        image_mounts: images.iter().map(|(index, image)| (*index, image.id.clone())).collect(),
        labels: labels(server, &pod, &config)?,
        created_at: identity::now(),
        complete: false,
        config: Stored(config),
        id,
    };
    let plan = Plan { pod, handler: &handler, image, volumes: images, snapshotter, saved };
    let mut undo = Undo::new(server.settings.defer_cleanup);
    let labels = record.labels.clone();
    let timer = server.counters.container_create.with_label_values(&[plan.handler.runtime.name.as_str()]);
    match timed(&timer, build(server, &plan, record, &mut undo)).await {
        Ok((record, entered)) => {
            let id = record.id.clone();
            server.index.announce_container(Container { record: Arc::new(record), state: Arc::default() });
            server.nri.post_create_container(&id, server.subject(&id)).await;
            drop(entered);
            Ok(id)
        }
        Err(error) => {
            undo.unwind().await; // what is left is left in the store as incomplete, for the next start
            server.settings.selinux.release(&labels);
            Err(error)
        }
    }
}

/// The image of a container, and the checkpoint that it is restored from.
async fn image(
    server: &Server,
    handler: &Handler,
    wanted: &str,
    archive: Option<(&'static str, String)>,
) -> Result<(Arc<Image>, Option<Saved>)> {
    let named = archive.is_some();
    let in_place = || wanted.starts_with('/').then(|| ("config.image.image", wanted.to_owned()));
    let Some((field, path)) = archive.or_else(in_place) else {
        let image = server.images.find(wanted)?;
        if !image.is_checkpoint {
            return Ok((image, None));
        }
        let saved = server.saved_image("config.image.image", &image, handler).await?;
        return Ok((server.image_of(&saved)?, Some(saved)));
    };
    check::path(field, &path)?;
    let saved = server.saved(field, &path, handler).await?;
    let image = server.image_of(&saved)?;
    if named && server.images.find(wanted)?.id != image.id {
        let name = saved.name();
        return Err(Error::failed_precondition(format!(
            "config.image.image: the checkpoint of {name} was made of another image, {}",
            image.id
        )));
    }
    Ok((image, Some(saved)))
}

/// The SELinux labels of a container that is to be made.
fn labels(server: &Server, pod: &Pod, config: &ContainerConfig) -> Result<selinux::Labels> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.selinux_options.as_ref());
    server.settings.selinux.of_container(options, &pod.record.labels)
}

/// Directories for the volumes that only the image declares.
fn volumes(server: &Server, id: &str, config: &ContainerConfig, image: &Image) -> Vec<crate::record::Volume> {
    if server.settings.config.ignore_image_defined_volumes {
        return Vec::new();
    }
    let clean = |path: &str| path.trim_end_matches('/').to_owned();
    let taken: Vec<String> = config.mounts.iter().map(|mount| clean(&mount.container_path)).collect();
    let own = image.config.volumes.keys().filter(|path| path.starts_with('/') && !taken.contains(&clean(path)));
    let dir = server.settings.files.container(id).join("volumes");
    own.enumerate()
        .map(|(index, path)| crate::record::Volume {
            container_path: path.clone(),
            host_path: dir.join(index.to_string()).to_string_lossy().into_owned(),
        })
        .collect()
}

/// The record and the snapshot at the same time, then the spec. The record's change is handed in first, so that the
/// snapshot is recorded in the same commit or a later one, and never there for the garbage collector without it. No plugin
/// of NRI's joins until the second part of the answer is dropped, which is when the container can be seen.
async fn build(
    server: &Arc<Server>,
    plan: &Plan<'_>,
    mut record: ContainerRecord,
    undo: &mut Undo,
) -> Result<(ContainerRecord, Entered)> {
    let id = record.id.clone();
    stage("writing the record");
    let (of, at) = (server.clone(), id.clone());
    undo.push("removing the record", async move { of.containers.delete(&of.scope, &at).await });
    let (of, at, by) = (server.clone(), id.clone(), plan.snapshotter.clone());
    undo.push("removing the snapshot", async move { of.snapshotter(&by)?.remove(&of.scope, &at).await });
    stage("preparing the root file system");
    let source = server.rootfs(&plan.snapshotter)?;
    let entry = stored(plan, &record)?;
    let prepare = source.prepare(&id, &plan.image.chain_id, Ids::of_container(&record.config));
    let (recorded, prepared) = tokio::join!(server.containers.create(&server.scope, entry), prepare);
    let rootfs = recorded.and(prepared)?;
    let (dirs, at) = (server.settings.files.clone(), id.clone());
    undo.push("removing files", blocking(move || remove_files(&dirs, &at)));
    let spec = spec(server, plan, &mut record, rootfs.clone()).await?;
    if let Some(saved) = &plan.saved {
        saved.fits(&spec)?;
        stage("unpacking the checkpoint");
        server.prepare_restore(&id, saved, &rootfs).await?;
    }
    stage("asking NRI plugins");
    let entered = server.nri.enter().await;
    let spec = ask_plugins(server, plan, &record, spec, undo).await?;
    stage("writing the spec");
    record.complete = true;
    let path = server.settings.files.status(&id);
    blocking(move || write_state(&path, &ContainerState::default())).await?;
    let mut container = Entry::new(id);
    container.spec = Some(spec);
    container.extensions = [(EXTENSION.to_owned(), record.pack()?)].into();
    let paths = ["spec".to_owned(), format!("extensions.{EXTENSION}")];
    server.containers.update(&server.scope, container, &paths).await?;
    Ok((record, entered))
}

/// The spec as NRI's plugins want it.
async fn ask_plugins(
    server: &Arc<Server>,
    plan: &Plan<'_>,
    record: &ContainerRecord,
    spec: Spec,
    undo: &mut Undo,
) -> Result<Any> {
    let subject = server.unmade(&plan.pod, record, &spec);
    let (of, id) = (server.clone(), record.id.clone());
    undo.push("telling NRI plugins", async move {
        of.nri.undo_container(&id, subject).await;
        Ok(())
    });
    let spec = server.adjusted(&plan.pod, record, spec).await?;
    Ok(Any::new(SPEC, spec.to_vec()))
}

/// Removes a container's directories. Blocks.
fn remove_files(dirs: &files::Files, id: &str) -> Result<()> {
    files::remove_dir(&dirs.container_state(id))?;
    files::remove_dir(&dirs.container(id))
}

fn stored(plan: &Plan<'_>, record: &ContainerRecord) -> Result<Entry> {
    let short = |(key, value): &(&String, &String)| !key.is_empty() && key.len() + value.len() <= LABEL;
    let given = record.config.labels.iter().filter(short).map(|(key, value)| (key.clone(), value.clone()));
    let mut labels: Labels = given.collect();
    labels.insert(KIND.to_owned(), CONTAINER.to_owned());
    Ok(Entry {
        labels,
        image: plan.image.name(),
        runtime: plan.handler.runtime.clone(),
        spec: Some(Any::new(SPEC, "{}")), // the store wants one; the real one follows when its parts exist
        snapshotter: plan.snapshotter.clone(),
        snapshot_key: record.id.clone(),
        extensions: [(EXTENSION.to_owned(), record.pack()?)].into(),
        sandbox: record.sandbox_id.clone(),
        ..Entry::new(record.id.clone())
    })
}

async fn spec(
    server: &Arc<Server>,
    plan: &Plan<'_>,
    record: &mut ContainerRecord,
    rootfs: Vec<kevel_model::Mount>,
) -> Result<Spec> {
    let (id, config) = (&plan.pod.record.id, &record.config);
    let places = image_volume::mount(server, plan.handler, id, config, &plan.volumes).await?;
    let (settings, copy, pod_record) = (server.settings.clone(), record.clone(), plan.pod.record.clone());
    stage("looking at the paths of mounts and devices");
    let limit = settings.config.host_path_timeout;
    let look = server.reach.look(limit, move || {
        let pod = translate::pod(&pod_record.id, &pod_record.config, &settings.config)?;
        Ok((pod, translate::container(&copy, &places, &settings.config)?))
    });
    let (pod, mut looked) = look.await?;
    stage("looking up the user");
    let (settings, copy, image) = (server.settings.clone(), record.clone(), plan.image.clone());
    let mut container = blocking(move || {
        let files = &settings.files;
        files::make_dir(&files.container(&copy.id))?;
        files::make_dir(&files.container_state(&copy.id))?;
        if settings.node.apparmor {
            apparmor::check(looked.apparmor.as_ref())?;
        }
        looked.user = user::look_up(&files.temporary(), &rootfs, &copy.config, &image.config, |root| {
            copy.volumes.iter().try_for_each(|one| volume::fill(root, one))
        })?;
        Ok(looked)
    })
    .await?;
    (record.uid, record.gid) = (container.user.uid, container.user.gid);
    record.groups = groups(&container.user);
    container.target_pid_namespace = target(server, record, container.namespaces.pid)?;
    let runtime = &plan.handler.runtime.name;
    container.selinux = server.settings.selinux.for_spec(&record.labels, container.privileged, runtime);
    relabel(server, plan, &container).await?;
    let spec = kevel_cri_spec::container(&ContainerInput {
        pod: &pod,
        container: &container,
        image: &plan.image.config.for_spec(),
        paths: &paths(server, &plan.pod),
        handler: &plan.handler.for_spec(server.recursive_read_only(&plan.handler.name)),
        node: &server.settings.node,
        policy: &server.settings.policy,
    })?;
    cdi::inject(server, &record.config, spec).await
}

/// Gives what the container mounts its label, where the request or the daemon wants that.
async fn relabel(server: &Server, plan: &Plan<'_>, container: &kevel_cri_spec::Container) -> Result<()> {
    let label = container.selinux.mount.clone();
    if label.is_empty() {
        return Ok(());
    }
    stage("labelling what is mounted");
    let sources = kevel_cri_spec::relabels(container, &paths(server, &plan.pod));
    let work = move || {
        sources.iter().try_for_each(|source| {
            reach::at("config.mounts", source)?;
            selinux::relabel(Path::new(source), &label)
        })
    };
    server.reach.look(RELABEL, work).await
}

/// The additional groups of a user, as statuses show them: the primary one among them.
fn groups(user: &kevel_cri_spec::User) -> Vec<i64> {
    let mut groups: std::collections::BTreeSet<i64> = user.supplemental_groups.iter().copied().collect();
    groups.insert(user.gid);
    if user.groups_policy == kevel_cri_spec::GroupsPolicy::Merge {
        groups.extend(&user.image_groups);
    }
    groups.into_iter().collect()
}

/// The process namespace of the container that this one looks at.
fn target(server: &Server, record: &ContainerRecord, mode: Mode) -> Result<Option<String>> {
    if mode != Mode::Target {
        return Ok(None);
    }
    let security = record.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.clone()).unwrap_or_default();
    let target = server.index.container(&options.target_id)?;
    let field = "config.linux.security_context.namespace_options.target_id";
    if target.record.sandbox_id != record.sandbox_id {
        return Err(Error::invalid_argument(format!("{field}: a container of another pod")));
    }
    if target.state.cri() != kevel_proto::runtime::v1::ContainerState::ContainerRunning {
        return Err(Error::failed_precondition(format!("{field}: the container does not run")));
    }
    Ok(Some(format!("/proc/{}/ns/pid", target.state.pid)))
}

/// What exists for a pod's containers to share.
fn paths(server: &Server, pod: &Pod) -> SandboxPaths {
    let record = &pod.record;
    let dir = server.settings.files.sandbox(&record.id);
    let file = |name: &str| Some(dir.join(name).to_string_lossy().into_owned());
    let options = translate::security(&record.config).namespace_options.unwrap_or_default();
    let shm = match options.ipc == NamespaceMode::Node as i32 {
        true => "/dev/shm".to_owned(),
        false => server.settings.files.sandbox_state(&record.id).join("shm").to_string_lossy().into_owned(),
    };
    let paths = SandboxPaths {
        hostname: file("hostname"),
        hosts: file("hosts"),
        resolv_conf: file("resolv.conf"),
        shm: Some(shm),
        network: (!record.host_network()).then(|| record.netns.clone()),
        ..SandboxPaths::default()
    };
    if record.pid == 0 { paths } else { paths.with_process(record.pid) }
}
