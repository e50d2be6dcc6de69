//! Mounts that live as long as a value, to look into a snapshot or to fill it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use kevel_model::Mount;
use rustix::mount::UnmountFlags;

use crate::{Error, Result, all, unmount_all, unmount_recursive};

const PREFIX: &str = "kevel-mount-";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Mounts at a directory of their own, unmounted and removed on drop, whatever happened in between.
#[derive(Debug)]
pub struct TempMount {
    path: PathBuf,
}

impl TempMount {
    /// Mounts the list at a new directory in `dir`, which is made when missing.
    pub fn new(dir: &Path, mounts: &[Mount]) -> Result<Self> {
        let doing = |path: &Path| format!("making temporary mount point {path:?}");
        std::fs::create_dir_all(dir).map_err(|error| Error::io(doing(dir), error))?;
        let path = loop {
            let path = dir.join(format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            match std::fs::create_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(doing(&path), error)),
            }
        };
        let made = Self { path }; // from here on drop removes the directory
        all(mounts, &made.path)?;
        Ok(made)
    }

    /// Where the mounts are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts now and says whether it worked, which drop can only log.
    pub fn close(self) -> Result<()> {
        let result = self.release();
        std::mem::forget(self);
        result
    }

    /// Detaches: who still reads inside finishes undisturbed, and nobody waits for a flush. Never removes recursively:
    /// what is below may be a snapshot.
    fn release(&self) -> Result<()> {
        unmount_recursive(&self.path, UnmountFlags::DETACH)?;
        match std::fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing temporary mount point {:?}", self.path), error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for TempMount {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!(path = %self.path.display(), error = %error, "temporary mount is left behind");
        }
    }
}

/// Runs `with` on a temporary mount of the list below `dir`. The mount is gone when this returns or unwinds; a process
/// killed in between leaves it to [`clean_temp_mounts`].
pub fn with_temp_mount<T, E: From<Error>>(
    dir: &Path,
    mounts: &[Mount],
    with: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let mounted = TempMount::new(dir, mounts)?;
    let value = with(mounted.path())?;
    mounted.close()?;
    Ok(value)
}

/// Removes what killed processes left in `dir`. Call at start, before the first temporary mount.
pub fn clean_temp_mounts(dir: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| Error::io(format!("listing {dir:?}"), error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(format!("listing {dir:?}"), error))?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        unmount_recursive(&path, UnmountFlags::DETACH)?;
        unmount_all(&path, UnmountFlags::DETACH)?;
        std::fs::remove_dir(&path).map_err(|error| Error::io(format!("removing {path:?}"), error))?;
    }
    Ok(())
}

/// The same mounts, unable to write: an overlay loses its upper directory to the top of its lower ones (so that no
/// unmount flushes anything and no work directory is used), everything else gets `ro`. Id mappings go away too: who looks
/// in sees the owners that are stored.
#[must_use]
pub fn read_only(mounts: &[Mount]) -> Vec<Mount> {
    mounts
        .iter()
        .map(|one| {
            let mut one = one.clone();
            one.options.retain(|option| !option.starts_with("uidmap=") && !option.starts_with("gidmap="));
            if one.kind == "overlay" {
                one.options = read_only_overlay(&one.options);
            } else {
                one.options.retain(|option| option != "rw" && option != "ro");
                one.options.push("ro".into());
            }
            one
        })
        .collect()
}

fn read_only_overlay(options: &[String]) -> Vec<String> {
    let upper = options.iter().find_map(|option| option.strip_prefix("upperdir="));
    options
        .iter()
        .filter(|option| !option.starts_with("upperdir=") && !option.starts_with("workdir=") && *option != "volatile")
        .map(|option| match (option.strip_prefix("lowerdir="), upper) {
            (Some(lower), Some(upper)) => format!("lowerdir={upper}:{lower}"),
            _ => option.clone(),
        })
        .collect()
}
