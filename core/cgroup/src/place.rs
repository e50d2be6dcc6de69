//! Where a process's cgroups are.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use kevel_mount::MountInfo;

/// Where the cgroup file systems of a node are mounted. Found once: the mount table of a busy node is long, and this
/// part of it does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    mounts: Vec<Hierarchy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Empty for version 2.
    controllers: Vec<String>,
    root: PathBuf,
    mount_point: PathBuf,
}

impl Hierarchies {
    /// Looks at the mount table. Blocks.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn of_node() -> io::Result<Self> {
        Ok(Self::parse(kevel_mount::mount_table().map_err(io::Error::other)?))
    }

    fn parse(table: Vec<MountInfo>) -> Self {
        // The last mount at a place hides those before; it is looked at first.
        let mounts = table.into_iter().rev().filter_map(|mount| {
            let controllers = match mount.kind.as_str() {
                "cgroup2" => Vec::new(),
                "cgroup" => mount.super_options.to_string_lossy().split(',').map(str::to_owned).collect(),
                _ => return None,
            };
            Some(Hierarchy { controllers, root: mount.root, mount_point: mount.mount_point })
        });
        Self { mounts: mounts.collect() }
    }

    /// The place of a process. Blocks.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn place(&self, pid: u32) -> io::Result<Place> {
        Ok(self.place_in(&fs::read_to_string(format!("/proc/{pid}/cgroup"))?))
    }

    fn place_in(&self, text: &str) -> Place {
        let mut place = Place::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
            if names.is_empty() {
                place.unified = self.locate(path, |mount| mount.controllers.is_empty());
                continue;
            }
            for name in names.split(',') {
                if let Some(dir) = self.locate(path, |mount| mount.controllers.iter().any(|one| one == name)) {
                    place.controllers.insert(name.to_owned(), dir);
                }
            }
        }
        // A hierarchy of version 2 beside controllers of version 1 accounts for nothing.
        if place.controllers.contains_key("memory") || place.controllers.contains_key("cpuacct") {
            place.unified = None;
        }
        place
    }

    /// The place of a cgroup by its path from the root, the same in every hierarchy: what an OCI specification calls
    /// `cgroupsPath`.
    pub fn at(&self, path: &str) -> Place {
        let mut place = Place::default();
        for mount in &self.mounts {
            for name in &mount.controllers {
                if let Some(dir) = self.locate(path, |other| other == mount) {
                    place.controllers.entry(name.clone()).or_insert(dir);
                }
            }
        }
        if !place.controllers.contains_key("memory") && !place.controllers.contains_key("cpuacct") {
            place.unified = self.locate(path, |mount| mount.controllers.is_empty());
        }
        place
    }

    /// The directory of a cgroup below the mount that shows it.
    fn locate(&self, path: &str, holds: impl Fn(&Hierarchy) -> bool) -> Option<PathBuf> {
        let mount = self.mounts.iter().find(|mount| holds(mount))?;
        let inside = Path::new(path).strip_prefix(&mount.root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
        Some(mount.mount_point.join(inside))
    }
}

/// The cgroups of a process: one directory in version 2, one for each controller in version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The directory in the unified hierarchy.
    pub unified: Option<PathBuf>,
    /// Directories of version 1, by controller.
    pub controllers: BTreeMap<String, PathBuf>,
}

impl Place {
    /// The cgroups above.
    #[must_use]
    pub fn parent(&self) -> Self {
        let up = |path: &PathBuf| path.parent().map(Path::to_owned);
        Self {
            unified: self.unified.as_ref().and_then(up),
            controllers: self.controllers.iter().filter_map(|(name, path)| Some((name.clone(), up(path)?))).collect(),
        }
    }

    /// The cgroup at or above this one whose name has `part` in it; this one when there is none. A container may move
    /// its first process to a cgroup below its own.
    #[must_use]
    pub fn named(&self, part: &str) -> Self {
        let find = |path: &PathBuf| {
            let is = |dir: &&Path| dir.file_name().is_some_and(|name| name.to_string_lossy().contains(part));
            path.ancestors().find(is).unwrap_or(path).to_owned()
        };
        Self {
            unified: self.unified.as_ref().map(find),
            controllers: self.controllers.iter().map(|(name, path)| (name.clone(), find(path))).collect(),
        }
    }

    /// Whether it is still there.
    pub fn exists(&self) -> bool {
        self.unified.iter().chain(self.controllers.values()).any(|dir| dir.exists())
    }

    /// A file of a controller of version 1.
    pub(crate) fn v1(&self, controller: &str, file: &str) -> Option<PathBuf> {
        self.controllers.get(controller).map(|dir| dir.join(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = b"30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 /outer /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const V2: &[u8] = b"30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn both_versions() {
        let node = |text| Hierarchies::parse(kevel_mount::info::parse(text).unwrap());
        let place = node(V1).place_in("0::/x\n3:memory:/outer/k/c\n2:cpu,cpuacct:/k/c\n");
        assert_eq!(place.unified, None);
        assert_eq!(place.v1("memory", "f").unwrap(), Path::new("/sys/fs/cgroup/memory/k/c/f"));
        assert_eq!(place.v1("cpuacct", "f").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/k/c/f"));
        assert_eq!(place.parent().v1("cpu", "f").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/k/f"));
        assert!(!place.exists());
        assert_eq!(node(V1).at("/k/c").v1("cpu", "f").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/k/c/f"));
        assert_eq!(node(V2).at("/k/c").unified.unwrap(), Path::new("/sys/fs/cgroup/k/c"));
        let below = node(V2).place_in("0::/pods/scope-77.x/init/a\n");
        assert_eq!(below.named("77").unified.unwrap(), Path::new("/sys/fs/cgroup/pods/scope-77.x"));
        assert_eq!(below.named("78"), below);
        let place = node(V2).place_in("0::/k/c\n");
        assert_eq!(place.unified.unwrap(), Path::new("/sys/fs/cgroup/k/c"));
    }

    #[test]
    fn own_place() {
        let place = Hierarchies::of_node().unwrap().place(std::process::id()).unwrap();
        assert!(place.exists(), "{place:?}");
    }
}
