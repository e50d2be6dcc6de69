//! Which hierarchies are mounted where, and where this process is in them.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use super::FIELD;
use crate::error::{Error, Result};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) root: PathBuf,
    /// Its controllers (`name=` for a named one); none is version 2.
    pub(crate) controllers: Vec<String>,
    /// The directory of this process, seen from the root.
    own: PathBuf,
}

/// The machine's hierarchies that containers are put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Only version 2.
    pub(crate) unified: bool,
    pub(crate) hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads the machine's.
    pub(crate) fn read() -> Result<Self> {
        let text = |path: &str| fs::read_to_string(path).map_err(|err| Error::system(format!("read {path}"), err));
        let layout = Self::parse(&text("/proc/self/mountinfo")?, &text("/proc/self/cgroup")?);
        if layout.hierarchies.is_empty() {
            return Err(Error::unsupported(FIELD, "no cgroups are mounted"));
        }
        Ok(layout)
    }

    fn parse(mounts: &str, own: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for line in mounts.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else { continue };
            let mut fields = mount.split(' ').skip(3);
            let (Some(inner), Some(root)) = (fields.next(), fields.next()) else { continue };
            let mut file_system = file_system.split(' ');
            let (kind, options) = (file_system.next(), file_system.nth(1).unwrap_or_default());
            // A mount of a part of the hierarchy shows only that part.
            if inner != "/" && !inner.starts_with("/..") {
                continue;
            }
            let hierarchy = |controllers: Vec<String>| {
                let own = own_path(own, &controllers);
                Hierarchy { root: PathBuf::from(root), controllers, own }
            };
            match kind {
                Some("cgroup2") if unified.is_none() => unified = Some(hierarchy(Vec::new())),
                Some("cgroup") => {
                    let found = hierarchy(controllers(options));
                    if !found.controllers.is_empty()
                        && hierarchies.iter().all(|other| other.controllers != found.controllers)
                    {
                        hierarchies.push(found);
                    }
                }
                _ => {}
            }
        }
        match unified {
            // Where any hierarchy of version 1 is mounted, the controllers are there.
            Some(only) if hierarchies.is_empty() => Self { unified: true, hierarchies: vec![only] },
            _ => Self { unified: false, hierarchies },
        }
    }

    /// The directory of a container in a hierarchy: an absolute path begins at the root, a relative one where we are.
    pub(crate) fn place(&self, hierarchy: &Hierarchy, path: Option<&Path>, id: &str) -> Result<PathBuf> {
        let path = path.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(id));
        let text = path.to_str().ok_or_else(|| Error::invalid(FIELD, "is not text"))?;
        if text.split(':').count() == 3 && !text.contains('/') {
            return Err(Error::unsupported(FIELD, "systemd's cgroup driver"));
        }
        let mut dir = if path.is_absolute() { hierarchy.root.clone() } else { hierarchy.root.join(&hierarchy.own) };
        let base = dir.clone();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => dir.push(name),
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Error::invalid(FIELD, "must not contain \"..\""));
                }
            }
        }
        if dir == base {
            return Err(Error::invalid(FIELD, "is the root cgroup"));
        }
        Ok(dir)
    }
}

/// Known options of the mount that are no controllers.
fn controllers(options: &str) -> Vec<String> {
    const OTHER: [&str; 8] =
        ["rw", "ro", "xattr", "noprefix", "clone_children", "none", "cpuset_v2_mode", "favordynmods"];
    let names = options.split(',').filter(|name| !OTHER.contains(name) && !name.starts_with("release_agent"));
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Our directory from `/proc/self/cgroup`, without the slash that it begins with.
fn own_path(own: &str, controllers: &[String]) -> PathBuf {
    let line = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let same =
            if controllers.is_empty() { names.is_empty() } else { names.split(',').any(|name| name == controllers[0]) };
        same.then_some(path)
    });
    PathBuf::from(line.unwrap_or("/").trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        34 30 0:28 /in /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n";
    const OWN: &str = "3:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/x\n";

    #[test]
    fn both_versions() {
        let hybrid = Layout::parse(HYBRID, OWN);
        assert!(!hybrid.unified);
        let names: Vec<_> = hybrid.hierarchies.iter().map(|one| one.controllers.join(",")).collect();
        assert_eq!(names, ["cpu,cpuacct", "name=systemd"]);
        let place = |path: &str| hybrid.place(&hybrid.hierarchies[0], Some(Path::new(path)), "id");
        assert_eq!(place("/pods/x").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/pods/x"));
        assert_eq!(place("pods/x").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b/pods/x"));
        assert_eq!(place("").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b/id"));
        for bad in ["/", "../x", "/a/../../b", "system.slice:kevel:id"] {
            assert_eq!(place(bad).unwrap_err().field(), Some(FIELD), "{bad}");
        }
        let unified = Layout::parse("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "0::/x\n");
        assert!(unified.unified);
        assert_eq!(
            unified.place(&unified.hierarchies[0], Some(Path::new("y")), "id").unwrap(),
            Path::new("/sys/fs/cgroup/x/y")
        );
    }
}
