//! Containers.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use kevel_cri_spec as spec;
use kevel_model::{Error, Result};
use kevel_mount::MountInfo;
use kevel_proto::runtime::v1 as cri;

use super::{apparmor, mappings, namespaces, resources, seccomp};
use crate::{
    config::RuntimeConfig,
    node, reach,
    record::{ContainerRecord, Volume},
};

/// A container as its spec sees it, its user, target and labels excepted. Looks at mount sources and devices, makes directories
/// that are missing, reads local profiles: it blocks. `images` says where images are mounted that are volumes.
pub(crate) fn container(
    record: &ContainerRecord,
    images: &BTreeMap<usize, PathBuf>,
    settings: &RuntimeConfig,
) -> Result<spec::Container> {
    let config = &record.config;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let field = "config.linux.security_context.seccomp";
    let unset = &settings.unset_seccomp_profile;
    let profile = seccomp(field, security.seccomp.as_ref(), &security.seccomp_profile_path, unset)?;
    let image = config.image.clone().unwrap_or_default();
    let table = match config.mounts.iter().any(|mount| mount.propagation != 0) {
        true => kevel_mount::mount_table()?,
        false => Vec::new(),
    };
    let mounts = config.mounts.iter().enumerate().map(|(index, from)| mount(index, from, images.get(&index), &table));
    let spaces = namespaces(security.namespace_options.as_ref());
    let user = spaces.user.clone().unwrap_or_default(); // without one: no mappings
    let volume = |volume: &Volume| spec::Mount {
        container_path: volume.container_path.clone(),
        host_path: volume.host_path.clone(),
        selinux_relabel: true,
        uid_mappings: user.uids.clone(),
        gid_mappings: user.gids.clone(),
        ..spec::Mount::default()
    };
    Ok(spec::Container {
        id: record.id.clone(),
        name: config.metadata.clone().unwrap_or_default().name,
        image_name: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        env: config.envs.iter().map(|env| (env.key.clone(), env.value.clone())).collect(),
        mounts: mounts.collect::<Result<_>>()?,
        image_volumes: record.volumes.iter().map(volume).collect(),
        devices: config.devices.iter().enumerate().map(|(index, from)| device(index, from)).collect::<Result<_>>()?,
        annotations: config.annotations.clone().into_iter().collect(),
        tty: config.tty,
        resources: linux.resources.as_ref().map(resources),
        privileged: security.privileged,
        readonly_rootfs: security.readonly_rootfs,
        no_new_privileges: security.no_new_privs,
        capabilities: security.capabilities.as_ref().map(capabilities).unwrap_or_default(),
        namespaces: spaces,
        target_pid_namespace: None,
        user: spec::User::default(),
        seccomp: profile,
        apparmor: apparmor(security.apparmor.as_ref(), &security.apparmor_profile),
        selinux: spec::Selinux::default(),
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
    })
}

fn capabilities(from: &cri::Capability) -> spec::Capabilities {
    spec::Capabilities {
        add: from.add_capabilities.clone(),
        drop: from.drop_capabilities.clone(),
        ambient: from.add_ambient_capabilities.clone(),
    }
}

fn mount(index: usize, from: &cri::Mount, image: Option<&PathBuf>, table: &[MountInfo]) -> Result<spec::Mount> {
    let host_path = match image {
        Some(place) => place.to_string_lossy().into_owned(),
        None => source(index, &from.host_path)?,
    };
    // An image's owners are mapped where it is mounted: an overlay could not be mapped once more.
    let mapped = |ids: &[cri::IdMapping]| if image.is_some() { Vec::new() } else { mappings(ids) };
    let propagation = match cri::MountPropagation::try_from(from.propagation) {
        Ok(cri::MountPropagation::PropagationHostToContainer) => spec::Propagation::HostToContainer,
        Ok(cri::MountPropagation::PropagationBidirectional) => spec::Propagation::Bidirectional,
        _ => spec::Propagation::Private,
    };
    Ok(spec::Mount {
        container_path: from.container_path.clone(),
        sharing: (from.propagation != 0).then(|| sharing(Path::new(&host_path), table)),
        host_path,
        readonly: from.readonly,
        recursive_read_only: from.recursive_read_only,
        selinux_relabel: from.selinux_relabel,
        propagation,
        uid_mappings: mapped(&from.uid_mappings),
        gid_mappings: mapped(&from.gid_mappings),
        image: from.image.is_some(),
        options: from.mount_options.clone(),
    })
}

/// The source of a mount with its links followed; a directory when there was nothing.
fn source(index: usize, path: &str) -> Result<String> {
    let field = format!("config.mounts[{index}].host_path");
    reach::at(&field, path)?;
    let failed = |error| Error::io(format!("{field} {path:?}"), error);
    let found = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path).map_err(failed)?;
            fs::canonicalize(path)
        }
        other => other,
    };
    let text = found.map_err(failed)?.into_os_string().into_string();
    text.map_err(|_| {
        Error::invalid_argument(format!("config.mounts[{index}].host_path: leads to a path that is not UTF-8"))
    })
}

fn sharing(path: &Path, table: &[MountInfo]) -> spec::Sharing {
    let holds = |mount: &&MountInfo| path.starts_with(&mount.mount_point);
    let deepest = table.iter().filter(holds).max_by_key(|mount| mount.mount_point.components().count());
    let has = |word: &str| deepest.is_some_and(|mount| mount.optional.iter().any(|field| field.starts_with(word)));
    if has("shared:") {
        spec::Sharing::Shared
    } else if has("master:") {
        spec::Sharing::Slave
    } else {
        spec::Sharing::Private
    }
}

/// A device, or all those in a directory.
fn device(index: usize, from: &cri::Device) -> Result<spec::Device> {
    let field = || format!("config.devices[{index}].host_path {:?}", from.host_path);
    reach::at(&format!("config.devices[{index}].host_path"), &from.host_path)?;
    let path = fs::canonicalize(&from.host_path).map_err(|error| Error::io(field(), error))?;
    let mut nodes = Vec::new();
    if path.is_dir() {
        inside(&path, &from.container_path, &mut nodes).map_err(|error| Error::io(field(), error))?;
    } else {
        nodes.extend(node::device(&path, &from.container_path));
    }
    if nodes.is_empty() {
        return Err(Error::invalid_argument(format!("{}: no device", field())));
    }
    Ok(spec::Device { nodes, permissions: from.permissions.clone() })
}

fn inside(dir: &Path, at: &str, nodes: &mut Vec<spec::DeviceNode>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let at = format!("{}/{}", at.trim_end_matches('/'), entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            inside(&entry.path(), &at, nodes)?;
        } else {
            nodes.extend(node::device(&entry.path(), &at));
        }
    }
    Ok(())
}

/// The signal that stops a container: the request's, else the image's, else SIGTERM.
pub(crate) fn stop_signal(config: &cri::ContainerConfig, image: &str) -> Result<u32> {
    const TERM: u32 = 15;
    match cri::Signal::try_from(config.stop_signal) {
        Ok(cri::Signal::RuntimeDefault) | Err(_) if image.is_empty() => Ok(TERM),
        Ok(cri::Signal::RuntimeDefault) | Err(_) => Ok(spec::stop_signal(image)?),
        Ok(signal) => Ok(spec::stop_signal(signal.as_str_name())?),
    }
}
