//! Cgroups of a container: made, limited, joined, frozen, emptied and removed, in both versions, through cgroupfs alone.
//! What they contain for the daemon's statistics is `kevel-cgroup`'s.

mod device;
mod layout;
mod v1;
mod v2;

use std::{
    fs, io,
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

pub(crate) use self::layout::{Hierarchy, Layout};
use crate::error::{Error, Result};

/// The field that names the cgroup.
pub(crate) const FIELD: &str = "linux.cgroupsPath";

/// How long a cgroup's processes may take to freeze or to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory in one hierarchy. Controllers are empty for a hierarchy of version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) controllers: Vec<String>,
    pub(crate) dir: PathBuf,
    /// The first directory that was made for it; what was there before stays.
    pub(crate) made: Option<PathBuf>,
}

/// The cgroup of a container, in each hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    pub(crate) unified: bool,
    pub(crate) places: Vec<Place>,
}

impl Cgroup {
    /// Makes the directories. Where one is there already it must be empty.
    pub(crate) fn make(layout: &Layout, path: Option<&Path>, id: &str) -> Result<Self> {
        let mut made = Self { unified: layout.unified, places: Vec::new() };
        for hierarchy in &layout.hierarchies {
            let dir = layout.place(hierarchy, path, id)?;
            match make_place(hierarchy, dir) {
                Ok(place) => made.places.push(place),
                Err(err) => {
                    let _the_first_error_counts = made.remove();
                    return Err(err);
                }
            }
        }
        Ok(made)
    }

    /// Sets what `resources` has.
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Result<()> {
        check(resources)?;
        if self.unified { v2::apply(&self.places[0].dir, resources) } else { v1::apply(self, resources) }
    }

    /// The directory in the hierarchy of a controller of version 1.
    pub(crate) fn of(&self, controller: &str) -> Option<&Path> {
        let has = |place: &&Place| place.controllers.iter().any(|name| name == controller);
        self.places.iter().find(has).map(|place| place.dir.as_path())
    }

    /// The `cgroup.procs` of all hierarchies, open for the container's process to write itself into.
    pub(crate) fn procs(&self) -> Result<Vec<OwnedFd>> {
        let open = |place: &Place| {
            let path = place.dir.join("cgroup.procs");
            let file = fs::OpenOptions::new().write(true).open(&path);
            file.map(OwnedFd::from).map_err(|err| Error::failed(FIELD, format!("open {}", path.display()), err))
        };
        self.places.iter().map(open).collect()
    }

    /// The directory of version 2, for a clone straight into it.
    pub(crate) fn directory(&self) -> Result<Option<OwnedFd>> {
        if !self.unified {
            return Ok(None);
        }
        let dir = &self.places[0].dir;
        let file = fs::File::open(dir).map_err(|err| Error::failed(FIELD, format!("open {}", dir.display()), err))?;
        Ok(Some(file.into()))
    }

    /// Every process in it and below.
    pub(crate) fn pids(&self) -> io::Result<Vec<i32>> {
        let dir = if self.unified {
            Some(self.places[0].dir.as_path())
        } else {
            self.of("freezer").or_else(|| self.of("pids"))
        };
        let mut pids = Vec::new();
        if let Some(dir) = dir.or_else(|| self.places.first().map(|place| place.dir.as_path())) {
            collect(dir, &mut pids)?;
        }
        Ok(pids)
    }

    /// Stops all of it, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        if self.unified {
            v2::freeze(&self.places[0].dir, frozen)
        } else {
            let dir = self
                .of("freezer")
                .ok_or_else(|| Error::unsupported("cgroup", "the freezer controller is not mounted"))?;
            v1::freeze(dir, frozen)
        }
    }

    /// Whether all of it is stopped.
    pub(crate) fn frozen(&self) -> Result<bool> {
        let (dir, file, stopped) = match self.of("freezer") {
            Some(dir) => (dir, "freezer.state", "FROZEN"),
            None if self.unified => (self.places[0].dir.as_path(), "cgroup.freeze", "1"),
            None => return Ok(false),
        };
        match fs::read_to_string(dir.join(file)) {
            Ok(text) => Ok(text.trim() == stopped),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(Error::failed("cgroup", format!("read {}", dir.join(file).display()), err)),
        }
    }

    /// Kills all that is in it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        if self.unified && write(&self.places[0].dir, "cgroup.kill", "1").is_ok() {
            return Ok(());
        }
        // Frozen, nothing forks away; the signals act when it thaws.
        let frozen = self.freeze(true).is_ok();
        for pid in self.pids()? {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _already_gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if frozen {
            self.freeze(false).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Removes the directories that were made for the container, with what it made below.
    pub(crate) fn remove(&self) -> Result<()> {
        for place in &self.places {
            let until = Instant::now() + PATIENCE;
            remove_tree(&place.dir, until)
                .map_err(|err| Error::failed(FIELD, format!("remove {}", place.dir.display()), err))?;
            let mut parent = place.dir.parent();
            // Directories on the way that were made for it go too, unless others use them by now.
            while let (Some(dir), Some(made)) = (parent, &place.made)
                && dir.starts_with(made)
                && fs::remove_dir(dir).is_ok()
            {
                parent = dir.parent();
            }
        }
        Ok(())
    }
}

fn make_place(hierarchy: &Hierarchy, dir: PathBuf) -> Result<Place> {
    let failed = |doing: String, err| Error::failed(FIELD, doing, err);
    let missing = dir.ancestors().take_while(|dir| !dir.exists()).last().map(Path::to_path_buf);
    if missing.is_none() && !fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().is_empty() {
        return Err(Error::invalid(FIELD, format!("there are processes in {}", dir.display())));
    }
    let place = Place { controllers: hierarchy.controllers.clone(), dir, made: missing };
    let ready = || -> Result<()> {
        fs::create_dir_all(&place.dir).map_err(|err| failed(format!("make {}", place.dir.display()), err))?;
        if hierarchy.controllers.is_empty() {
            v2::enable(&hierarchy.root, &place.dir)?;
        } else if hierarchy.controllers.iter().any(|name| name == "cpuset") {
            v1::inherit_cpuset(&hierarchy.root, &place.dir)?;
        }
        Ok(())
    };
    ready().inspect_err(|_| {
        for dir in place.dir.ancestors().take_while(|dir| place.made.as_ref().is_some_and(|made| dir.starts_with(made)))
        {
            let _what_was_not_made = fs::remove_dir(dir);
        }
    })?;
    Ok(place)
}

/// Fields that no version of cgroups can honour any more, or that we do not.
fn check(resources: &LinuxResources) -> Result<()> {
    let refuse = |field: &str, reason: &str| Err(Error::unsupported(format!("linux.resources.{field}"), reason));
    if let Some(memory) = resources.memory() {
        if memory.kernel().is_some_and(|kernel| kernel > 0) {
            return refuse("memory.kernel", "kernels have no such limit any more");
        }
        if memory.check_before_update() == Some(true) {
            return refuse("memory.checkBeforeUpdate", "a check of what is used");
        }
    }
    if resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()) {
        return refuse("rdma", "the rdma controller");
    }
    if resources.pids().as_ref().is_some_and(|pids| pids.limit() < -1) {
        return Err(Error::invalid("linux.resources.pids.limit", "is below -1"));
    }
    Ok(())
}

pub(crate) fn write(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(dir.join(file))?.write_all(text.as_bytes())
}

/// Writes a limit; the error names the field.
fn set(dir: &Path, file: &str, text: &str, field: &str) -> Result<()> {
    let field = format!("linux.resources.{field}");
    match write(dir, file, text) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            Err(Error::unsupported(field, format!("the kernel has no {file}")))
        }
        Err(err) => Err(Error::failed(field, format!("write {text:?} to {}", dir.join(file).display()), err)),
    }
}

fn collect(dir: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Err(err) if err.kind() == io::ErrorKind::NotFound || err.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        // A threaded cgroup: its processes are listed above it.
        Err(err) if err.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        answer => answer?,
    };
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for below in children(dir)? {
        collect(&below, pids)?;
    }
    Ok(())
}

fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        answer => answer?,
    };
    let mut below = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    Ok(below)
}

/// Removes a cgroup and those below it; while the last process is on its way out the kernel says that it is busy.
fn remove_tree(dir: &Path, until: Instant) -> io::Result<()> {
    for below in children(dir)? {
        remove_tree(&below, until)?;
    }
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => pause(),
            Err(err) => return Err(err),
        }
    }
}

/// Between two looks at a state that the kernel does not announce.
fn pause() {
    let _interrupted = rustix::thread::nanosleep(&rustix::fs::Timespec { tv_sec: 0, tv_nsec: 500_000 });
}
