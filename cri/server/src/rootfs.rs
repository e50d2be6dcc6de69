//! Root file systems of containers in user namespaces: owners are mapped by the snapshotter where it can do that, else
//! the layers are copied once with other owners, as containerd does.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::{Path, PathBuf},
};

use kevel_contract::{
    Scope,
    introspection::Introspection,
    snapshot::{Commit, Info, Snapshotter},
};
use kevel_model::{Error, Filters, Labels, Mount, Result};

use crate::{files::blocking, userns::Ids};

/// The snapshotter hands mappings of labels on to its mounts.
const REMAPS: &str = "remap-ids";
/// It wants nobody to copy layers instead.
const ONLY_REMAPS: &str = "only-remap-ids";
/// What keeps a snapshot that nothing refers to yet.
const ROOT: &str = "containerd.io/gc.root";

/// Where root file systems come from.
pub(crate) struct Source<'a> {
    /// The snapshotter.
    pub(crate) snapshotter: &'a Snapshotter,
    /// Its name.
    pub(crate) name: &'a str,
    /// Who knows what it can do.
    pub(crate) introspection: &'a Introspection,
    /// Whose snapshots they are.
    pub(crate) scope: &'a Scope,
    /// Where layers are mounted to be copied.
    pub(crate) temporary: PathBuf,
}

impl Source<'_> {
    /// A writable snapshot `key` on an image's layers, whose owners are `ids`.
    pub(crate) async fn prepare(&self, key: &str, chain_id: &str, ids: Option<Ids>) -> Result<Vec<Mount>> {
        let Some(ids) = ids else {
            return self.snapshotter.prepare(self.scope, key, chain_id, Labels::new()).await;
        };
        let can = self.capabilities().await?;
        if can.iter().any(|one| one == REMAPS) {
            return self.snapshotter.prepare(self.scope, key, chain_id, ids.labels()).await;
        }
        if can.iter().any(|one| one == ONLY_REMAPS) {
            return Err(Error::failed_precondition(format!(
                "snapshotter {} neither maps owners on this kernel nor may copy layers (slow_chown)",
                self.name
            )));
        }
        let shifted = self.shifted(chain_id, ids).await?;
        let prepared = self.snapshotter.prepare(self.scope, key, &shifted, Labels::new()).await;
        if prepared.is_ok() {
            self.release(&shifted).await?;
        }
        prepared
    }

    /// A read-only snapshot `key` of an image's layers, with owners mapped; it stays until it is removed. Copies are
    /// not made for it.
    pub(crate) async fn view(&self, key: &str, chain_id: &str, ids: Option<Ids>, mut labels: Labels) -> Result<()> {
        if let Some(ids) = ids {
            if !self.capabilities().await?.iter().any(|one| one == REMAPS) {
                return Err(Error::failed_precondition(format!("snapshotter {} does not map owners", self.name)));
            }
            labels.extend(ids.labels());
        }
        labels.insert(ROOT.to_owned(), "1".to_owned());
        match self.snapshotter.view(self.scope, key, chain_id, labels).await {
            Err(error) if error.is_already_exists() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn capabilities(&self) -> Result<Vec<String>> {
        let filters = Filters::parse(&[format!("type==io.containerd.snapshotter.v1,id=={}", self.name)])?;
        let found = self.introspection.plugins(&filters).await?;
        Ok(found.iter().flat_map(|plugin| plugin.declared.capabilities.clone()).collect())
    }

    /// The name of a committed copy of the layers with other owners; made when it is not there.
    async fn shifted(&self, chain_id: &str, ids: Ids) -> Result<String> {
        let ranges = [ids.users, ids.groups].map(|range| format!("{}-{}", range.outside, range.size));
        let name = format!("{chain_id}-remapped-{}", ranges.join("-"));
        if self.snapshotter.stat(self.scope, &name).await.is_ok() {
            return Ok(name);
        }
        let work = format!("{name}-work");
        let labels: Labels = [(ROOT.to_owned(), "1".to_owned())].into();
        match self.snapshotter.remove(self.scope, &work).await {
            Err(error) if !error.is_not_found() => return Err(error), // of a daemon that was killed
            _ => {}
        }
        let mounts = self.snapshotter.prepare(self.scope, &work, chain_id, labels.clone()).await?;
        let temporary = self.temporary.clone();
        let changed = blocking(move || {
            let shift = |root: &Path| shift(root, ids).map_err(|error| Error::io("changing owners of layers", error));
            kevel_mount::with_temp_mount(&temporary, &mounts, shift)
        });
        let done = match changed.await {
            Ok(()) => self.snapshotter.commit(self.scope, &name, &work, Commit { labels, parent: None }).await,
            Err(error) => Err(error),
        };
        match done {
            Err(error) => {
                if let Err(left) = self.snapshotter.remove(self.scope, &work).await {
                    tracing::warn!(snapshot = work, error = left.chain(), "snapshot is left");
                }
                Err(error)
            }
            Ok(()) => Ok(name),
        }
    }

    /// From now on whoever stands on it keeps it.
    async fn release(&self, name: &str) -> Result<()> {
        let mut info: Info = self.snapshotter.stat(self.scope, name).await?;
        if info.labels.remove(ROOT).is_some() {
            self.snapshotter.update(self.scope, info, &[format!("labels.{ROOT}")]).await?;
        }
        Ok(())
    }
}

/// Gives everything below `at` to the ids that the namespace has for its owners. An owner outside the range stays, and
/// the namespace sees nobody.
fn shift(at: &Path, ids: Ids) -> io::Result<()> {
    shift_one(at, ids)?;
    if !fs::symlink_metadata(at)?.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(at)? {
        shift(&entry?.path(), ids)?;
    }
    Ok(())
}

/// A change of owner takes set-id bits and capabilities away; they are put back, capabilities for the namespace's root.
fn shift_one(at: &Path, ids: Ids) -> io::Result<()> {
    let meta = fs::symlink_metadata(at)?;
    let capability = if meta.is_file() { capability(at)? } else { None };
    lchown(at, ids.users.outside(meta.uid()), ids.groups.outside(meta.gid()))?;
    if !meta.is_symlink() && meta.mode() & 0o6000 != 0 {
        fs::set_permissions(at, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    match (capability, ids.users.outside(0)) {
        (Some(value), Some(root)) => {
            let flags = rustix::fs::XattrFlags::empty();
            Ok(rustix::fs::lsetxattr(at, CAPABILITY, &owned_capability(&value, root), flags)?)
        }
        _ => Ok(()),
    }
}

const CAPABILITY: &str = "security.capability";

fn capability(at: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0_u8; 64];
    match rustix::fs::lgetxattr(at, CAPABILITY, &mut value) {
        Ok(size) => Ok(Some(value[..size].to_vec())),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The value in version 3, which says the root of the namespace that the capabilities are for (capabilities(7)).
fn owned_capability(value: &[u8], root: u32) -> Vec<u8> {
    const VERSION_3: u32 = 0x0300_0000;
    let Some((magic, rest)) = value.split_first_chunk::<4>() else { return value.to_vec() };
    let magic = VERSION_3 | (u32::from_le_bytes(*magic) & 0x00ff_ffff);
    let masks = &rest[..rest.len().min(16)];
    [&magic.to_le_bytes()[..], masks, &root.to_le_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use kevel_mount::IdRange;

    use super::*;

    #[test]
    fn owners_shift_and_rights_stay() {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: changing owners needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("tool"), "x").unwrap();
        lchown(file("tool"), Some(5), Some(70000)).unwrap();
        fs::set_permissions(file("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        // cap_net_bind_service, permitted and effective, in version 2.
        let value = [&[1, 0, 0, 2, 0, 4, 0, 0][..], &[0; 12]].concat();
        rustix::fs::lsetxattr(file("tool"), CAPABILITY, &value, rustix::fs::XattrFlags::empty()).unwrap();
        std::os::unix::fs::symlink("tool", file("link")).unwrap();
        let range = IdRange { inside: 0, outside: 100_000, size: 65536 };
        shift(dir.path(), Ids { users: range, groups: range }).unwrap();
        let owner = |name: &str| {
            let meta = fs::symlink_metadata(file(name)).unwrap();
            (meta.uid(), meta.gid())
        };
        assert_eq!(owner("tool"), (100_005, 70000), "a group outside the range stays");
        assert_eq!((owner("link"), owner("")), ((100_000, 100_000), (100_000, 100_000)));
        assert_eq!(fs::metadata(file("tool")).unwrap().mode() & 0o7777, 0o4755);
        let value = capability(&file("tool")).unwrap().unwrap();
        assert_eq!((value[..4].to_vec(), value.len()), (vec![1, 0, 0, 3], 24));
        assert_eq!(value[20..], 100_000_u32.to_le_bytes());
    }
}
