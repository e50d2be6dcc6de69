//! The mount manager's hands: mounts that need more than mount(2) are made ready in directories of the manager's own. Who
//! asked for what, and how long it lives, is recorded elsewhere.
//!
//! A mount's type may have transforms in front, `<transform>/<transform>/<type>`: `format` fills in what earlier mounts
//! became, `mkdir` makes directories, `mkfs` an image with a file system. The type `loop` is a file as a block device.
//! Everything up to the last mount that needs such help is mounted here, an activation in one directory; what remains is
//! for whoever wants to see the files.

mod format;
mod r#loop;
mod mkdir;
mod mkfs;
mod place;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use kevel_model::Mount;
use rustix::mount::UnmountFlags;

use crate::{Error, Result, all, unmount_all};

/// The most mounts of one activation.
const MAX_MOUNTS: usize = 255;
/// The type of files that become block devices.
const LOOP: &str = "loop";

/// A mount that was made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveMount {
    /// What was mounted, after its transforms.
    pub mount: Mount,
    /// Where: a directory, or of a loop device a link to it.
    pub point: PathBuf,
    /// When.
    pub at: SystemTime,
}

/// What became of a list of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activated {
    /// What was mounted.
    pub active: Vec<ActiveMount>,
    /// What is left to mount.
    pub system: Vec<Mount>,
}

/// A transform of a mount's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transform {
    Format,
    Mkdir,
    Mkfs,
}

impl Transform {
    /// The transforms in front of a type, in their order, and the type without them.
    fn split(mut kind: &str) -> (Vec<Self>, &str) {
        let mut transforms = Vec::new();
        while let Some((first, rest)) = kind.split_once('/') {
            transforms.push(match first {
                "format" => Self::Format,
                "mkdir" => Self::Mkdir,
                "mkfs" => Self::Mkfs,
                _ => break, // a type of its own, for whoever knows it
            });
            kind = rest;
        }
        (transforms, kind)
    }
}

/// How many of the mounts, from the first, are to be made here: all before the last that is transformed, and the last
/// that the kernel does not know; of mounts for a look inside all. None when nothing needs help.
fn ours(mounts: &[Mount], temporary: bool) -> Option<usize> {
    let mut ours = None;
    for (index, mount) in mounts.iter().enumerate() {
        let (transforms, kind) = Transform::split(&mount.kind);
        if !transforms.is_empty() {
            ours = Some(index);
        }
        if kind == LOOP || temporary {
            ours = Some(index + 1);
        }
    }
    ours
}

/// Whether a list of mounts needs help. Others are mounted as they are.
pub fn needs_activation(mounts: &[Mount], temporary: bool) -> bool {
    ours(mounts, temporary).is_some()
}

/// Makes and undoes activations below a directory, each under a number. Everything blocks.
#[derive(Clone, Debug)]
pub struct Manager {
    targets: PathBuf,
    /// Where directories and images may be made.
    roots: Vec<PathBuf>,
}

impl Manager {
    /// A manager with its targets in a directory, which is made when needed. Directories and images that mounts ask for
    /// are made there and below the `roots` only.
    pub fn new(targets: impl Into<PathBuf>, roots: impl IntoIterator<Item = PathBuf>) -> Self {
        let targets = targets.into();
        let roots = roots.into_iter().chain([targets.clone()]).collect();
        Self { targets, roots }
    }

    /// Mounts what [`needs_activation`] finds, under a number that nothing had yet. When it fails, nothing stays mounted.
    pub fn activate(&self, number: u64, mounts: &[Mount], temporary: bool) -> Result<Activated> {
        if mounts.len() > MAX_MOUNTS {
            let why = format!("are {}, more than {MAX_MOUNTS}", mounts.len());
            return Err(Error::refused("mounts", why));
        }
        let dir = self.dir(number);
        let make = || {
            fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.targets)?;
            fs::DirBuilder::new().mode(0o700).create(&dir)
        };
        make().map_err(|error| Error::io(format!("making {dir:?} for mounts"), error))?;
        let activated = self.perform(number, mounts, temporary);
        if activated.is_err()
            && let Err(left) = self.deactivate(number)
        {
            tracing::warn!(path = %dir.display(), error = %left, "mounts are left after a failed activation");
        }
        activated
    }

    fn perform(&self, number: u64, mounts: &[Mount], temporary: bool) -> Result<Activated> {
        let (dir, ours) = (self.dir(number), ours(mounts, temporary).unwrap_or(0));
        let mut active = Vec::with_capacity(ours);
        for (index, mount) in mounts.iter().take(ours).enumerate() {
            let mount = self.transform(number, index, mount, &active)?;
            let point = dir.join(format!("{index:03}"));
            if mount.kind == LOOP {
                r#loop::attach(&mount, &point)?;
            } else {
                let made = fs::DirBuilder::new().mode(0o700).create(&point);
                made.map_err(|error| Error::io(format!("making mount point {point:?}"), error))?;
                all(std::slice::from_ref(&mount), &point)?;
            }
            active.push(ActiveMount { mount, point, at: SystemTime::now() });
        }
        let mut system = mounts[ours..].to_vec();
        if let Some(first) = system.first_mut() {
            *first = self.transform(number, ours, first, &active)?;
        }
        if let Some(last) = active.last().filter(|_| temporary) {
            let (kind, source) = ("bind".to_owned(), last.point.to_string_lossy().into_owned());
            system.push(Mount { kind, source, target: String::new(), options: vec!["rbind".to_owned()] });
        }
        Ok(Activated { active, system })
    }

    /// A description without the transforms in front of its type, which are done.
    fn transform(&self, number: u64, index: usize, mount: &Mount, active: &[ActiveMount]) -> Result<Mount> {
        let (transforms, kind) = Transform::split(&mount.kind);
        let mut mount = Mount { kind: kind.to_owned(), ..mount.clone() };
        for transform in transforms {
            match transform {
                Transform::Format => format::transform(&mut mount, active)?,
                Transform::Mkdir => mkdir::transform(&mut mount, &self.roots)?,
                Transform::Mkfs => mkfs::transform(&mut mount, &self.roots, &format!("{number}-{index}"))?,
            }
        }
        Ok(mount)
    }

    /// Unmounts everything of an activation, the last first. One that does not exist, or not whole, is fine; whatever
    /// fails, the rest is tried, and another call can go on.
    pub fn deactivate(&self, number: u64) -> Result<()> {
        let dir = self.dir(number);
        let mut first = Ok(());
        for name in names(&dir)?.iter().rev() {
            let undone = undo(&dir.join(name));
            if first.is_ok() {
                first = undone;
            }
        }
        first?;
        gone(fs::remove_dir(&dir)).map_err(|error| Error::io(format!("removing {dir:?}"), error))
    }

    /// The numbers of everything that is there.
    pub fn numbers(&self) -> Result<Vec<u64>> {
        Ok(names(&self.targets)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn dir(&self, number: u64) -> PathBuf {
        self.targets.join(number.to_string())
    }
}

/// Undoes one mount. What it leaves is removed only when it is an empty directory or a link: below may be a snapshot.
fn undo(point: &Path) -> Result<()> {
    let doing = |what: &str| format!("{what} {point:?}");
    let about = match fs::symlink_metadata(point) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about.map_err(|error| Error::io(doing("looking at"), error))?,
    };
    if about.is_symlink() {
        return r#loop::detach(point);
    }
    unmount_all(point, UnmountFlags::empty())?;
    gone(fs::remove_dir(point)).map_err(|error| Error::io(doing("removing mount point"), error))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The names in a directory, sorted; none when it does not exist.
fn names(dir: &Path) -> Result<Vec<String>> {
    let doing = |error| Error::io(format!("listing {dir:?}"), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(doing)?,
    };
    let names: io::Result<Vec<_>> =
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.map_err(doing)?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_help_is_left_alone() {
        let check = |kinds: &[&str], temporary, want| {
            let mount = |kind: &&str| Mount { kind: (*kind).to_owned(), ..Mount::default() };
            let mounts: Vec<_> = kinds.iter().map(mount).collect();
            assert_eq!(ours(&mounts, temporary), want, "{kinds:?}");
        };
        check(&["overlay"], false, None);
        check(&["bind", "vendor/fs"], false, None);
        check(&["overlay"], true, Some(1));
        check(&["format/overlay"], false, Some(0));
        check(&["bind", "format/mkdir/overlay"], false, Some(1));
        check(&["loop", "ext4"], false, Some(1));
        check(&["mkfs/loop", "format/ext4", "overlay"], false, Some(1));
        check(&["mkfs/loop", "format/ext4", "format/overlay"], false, Some(2));
        check(&["loop"], false, Some(1));
        check(&[], true, None);
    }
}
