//! Images as volumes: a read-only snapshot for each pod and image, mounted once and bound into every container that asks
//! for it. It lives as long as the pod, because containers come and go in it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use kevel_contract::snapshot::Snapshotter;
use kevel_model::{Error, Filters, Labels, Result};
use kevel_mount::UnmountFlags;
use kevel_proto::runtime::v1 as cri;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::artifact;
use crate::{
    config::Handler,
    files::{self, blocking},
    image::Image,
    record::SandboxRecord,
    server::Server,
    userns::Ids,
};

/// The label that says which pod a snapshot is a volume of.
const POD: &str = "io.cri-containerd.image-volume.sandbox";
/// What the kubelet looks for in the error to tell a volume's failure from the container's.
const FAILED: &str = "ImageVolumeMountFailed";

/// The images that mounts of a request name, by the mount's place in the list. Nothing is mounted yet.
pub(super) fn find(server: &Server, config: &cri::ContainerConfig) -> Result<BTreeMap<usize, Arc<Image>>> {
    let mut found = BTreeMap::new();
    for (index, mount) in config.mounts.iter().enumerate() {
        let Some(wanted) = &mount.image else { continue };
        let image = server.images.find(&wanted.image);
        let image = image.map_err(|error| error.context(format!("{FAILED}: config.mounts[{index}].image")))?;
        found.insert(index, image);
    }
    Ok(found)
}

/// Mounts them; answers where, by the mount's place in the list.
pub(super) async fn mount(
    server: &Server,
    handler: &Handler,
    pod: &str,
    config: &cri::ContainerConfig,
    images: &BTreeMap<usize, Arc<Image>>,
) -> Result<BTreeMap<usize, PathBuf>> {
    let mut places = BTreeMap::new();
    for (index, image) in images {
        let mount = &config.mounts[*index];
        let field = format!("{FAILED}: config.mounts[{index}]");
        let place = place(server, handler, pod, image, Ids::of_mount(mount)).await;
        let place = place.map_err(|error| error.context(field.clone()))?;
        let sub = mount.image_sub_path.clone();
        let place = blocking(move || below(&place, &sub)).await.map_err(|error| error.context(field))?;
        places.insert(*index, place);
    }
    Ok(places)
}

async fn place(server: &Server, handler: &Handler, pod: &str, image: &Image, ids: Option<Ids>) -> Result<PathBuf> {
    if let Some(files) = &image.artifact {
        return artifact::place(server, pod, image, files).await;
    }
    let digest = image.id.split_once(':').map_or(image.id.as_str(), |(_, hex)| hex);
    let mapped = ids.map(|ids| format!("-{}-{}", ids.users.outside, ids.groups.outside)).unwrap_or_default();
    let target = server.settings.files.image_volumes(pod).join(format!("{digest}{mapped}"));
    let key = target.to_string_lossy().into_owned();
    let _alone = server.locks.alone(&key).await;
    let of = target.clone();
    if blocking(move || Ok(of.exists() && kevel_mount::is_mount_point(&of)?)).await? {
        return Ok(target);
    }
    let name = server.snapshotter_of(handler);
    server.images.unpacked(image, &name).await?;
    let labels: Labels = [(POD.to_owned(), pod.to_owned())].into();
    server.rootfs(&name)?.view(&key, &image.chain_id, ids, labels).await?;
    let mounts = server.snapshotter(&name)?.mounts(&server.scope, &key).await?;
    let at = target.clone();
    let mounted = blocking(move || {
        files::make_dir(&at)?;
        Ok(kevel_mount::all(&mounts, &at)?)
    });
    if let Err(error) = mounted.await {
        forget(server.snapshotter(&name)?, server, &target).await?;
        return Err(error);
    }
    Ok(target)
}

/// The directory in a mounted image, which no link of the image leads out of. Blocks.
fn below(volume: &Path, sub: &str) -> Result<PathBuf> {
    if sub.is_empty() {
        return Ok(volume.to_owned());
    }
    let doing = || format!("image_sub_path {sub:?}");
    let root = File::open(volume).map_err(|error| Error::io(doing(), error))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let relative = sub.trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    let found = rustix::fs::openat2(&root, relative, flags, Mode::empty(), within).map_err(|error| match error {
        rustix::io::Errno::NOENT => Error::not_found(format!("{}: is not in the image", doing())),
        rustix::io::Errno::NOTDIR => Error::invalid_argument(format!("{}: is not a directory", doing())),
        rustix::io::Errno::XDEV => Error::invalid_argument(format!("{}: leads out of the image", doing())),
        other => Error::io(doing(), other.into()),
    })?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
    fs::read_link(path).map_err(|error| Error::io(doing(), error))
}

/// Unmounts a volume and removes its snapshot. Repeating it is no error.
async fn forget(snapshotter: &Snapshotter, server: &Server, target: &Path) -> Result<()> {
    let at = target.to_owned();
    let unmounted = blocking(move || {
        if at.exists() {
            kevel_mount::unmount_all(&at, UnmountFlags::DETACH)?;
            fs::remove_dir(&at).map_err(|error| Error::io(format!("removing directory {}", at.display()), error))?;
        }
        Ok(())
    });
    unmounted.await?;
    match snapshotter.remove(&server.scope, &target.to_string_lossy()).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

impl Server {
    /// Removes every image volume of a pod whose containers have ended. Repeating it is no error.
    pub(crate) async fn forget_image_volumes(&self, pod: &SandboxRecord) -> Result<()> {
        let artifacts = artifact::dir(self, &pod.id);
        blocking(move || files::remove_dir(&artifacts)).await?;
        let dir = self.settings.files.image_volumes(&pod.id);
        let Some(targets) = listed(dir.clone()).await? else { return Ok(()) };
        let name = self.snapshotter_of(&*self.settings.handler(&pod.handler)?);
        for target in targets {
            let _alone = self.locks.alone(&target.to_string_lossy()).await;
            let done = forget(self.snapshotter(&name)?, self, &target).await;
            done.map_err(|error| error.context(format!("removing image volume {}", target.display())))?;
        }
        blocking(move || files::remove_dir(&dir)).await
    }

    /// After a start: removes volumes of pods that are gone, and snapshots of volumes that a reboot unmounted.
    pub(crate) async fn clean_image_volumes(self: Arc<Self>) {
        let names: std::collections::BTreeSet<String> =
            self.settings.handlers().iter().map(|(_, handler)| self.snapshotter_of(handler)).collect();
        for name in names {
            if let Err(error) = self.clean_in(&name).await {
                tracing::warn!(snapshotter = name, error = error.chain(), "image volumes are left");
            }
        }
    }

    async fn clean_in(&self, name: &str) -> Result<()> {
        let snapshotter = self.snapshotter(name)?;
        let filters = Filters::parse(&[format!("labels.\"{POD}\"")])?;
        for volume in snapshotter.list(&self.scope, &filters).await? {
            let (target, pod) = (PathBuf::from(&volume.name), volume.labels.get(POD).cloned().unwrap_or_default());
            let _alone = self.locks.alone(&volume.name).await;
            let at = target.clone();
            let mounted = blocking(move || Ok(at.exists() && kevel_mount::is_mount_point(&at)?)).await?;
            if !mounted || !self.index.snapshot().pods.contains_key(&pod) {
                forget(snapshotter, self, &target).await?;
            }
        }
        Ok(())
    }
}

/// What is in the directory; `None` when there is none.
async fn listed(dir: PathBuf) -> Result<Option<Vec<PathBuf>>> {
    blocking(move || match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("listing {}", dir.display()), error)),
        Ok(entries) => Ok(Some(entries.flatten().map(|entry| entry.path()).collect())),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_stays_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("image");
        fs::create_dir_all(root.join("data/deep")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        for (link, to) in [("inside", "data"), ("outside", "../.."), ("absolute", "/etc"), ("gone", "nowhere")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        let root = root.canonicalize().unwrap();
        assert_eq!(below(&root, "").unwrap(), root);
        assert_eq!(below(&root, "/data/deep").unwrap(), root.join("data/deep"));
        assert_eq!(below(&root, "inside/deep").unwrap(), root.join("data/deep"));
        let check = |sub: &str, want: &str| {
            let error = below(&root, sub).unwrap_err().to_string();
            assert!(error.contains(want), "{sub}: {error}");
        };
        check("file", "is not a directory");
        check("outside", "leads out of the image");
        check("absolute", "leads out of the image");
        check("gone", "is not in the image");
        check("none", "is not in the image");
    }
}
