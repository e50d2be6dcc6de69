//! Archives that are being written, beside the place that they are for: noted, so that a daemon that dies meanwhile is
//! followed by one that removes what there is of them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use kevel_model::{Error, Result};

use crate::{files::blocking, reach, server::Server};

/// The note, in a container's directory, which goes with the container.
pub(super) const FILE: &str = "partial";

/// Notes where an archive is begun. Blocks.
pub(super) fn note(note: &Path, partial: &Path) -> Result<()> {
    let write = || {
        let mut file = File::create(note)?;
        file.write_all(partial.as_os_str().as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| Error::io(format!("writing {}", note.display()), error))
}

/// There is none any more. Blocks.
pub(super) fn forget(note: &Path) {
    if let Err(error) = fs::remove_file(note)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %note.display(), %error, "a note stays");
    }
}

/// Removes what the note names. Blocks.
fn remove(note: &Path) -> Result<()> {
    let Some(partial) = read(note)? else { return Ok(()) };
    reach::at("location", &partial.to_string_lossy())?;
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", partial.display()), error))
        }
        _ => {
            forget(note);
            Ok(())
        }
    }
}

fn read(note: &Path) -> Result<Option<PathBuf>> {
    match fs::read(note) {
        Ok(path) if path.is_empty() => Ok(None), // nothing was begun
        Ok(path) => Ok(Some(PathBuf::from(OsStr::from_bytes(&path)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("reading {}", note.display()), error)),
    }
}

impl Server {
    /// After a start: what the daemon before had begun to write of a container's checkpoint goes. What does not goes with the
    /// next start.
    pub(crate) async fn remove_partial_archive(&self, id: &str) {
        let note = self.settings.files.container(id).join(FILE);
        let at = note.clone();
        if !blocking(move || Ok(at.exists())).await.unwrap_or(true) {
            return;
        }
        if let Err(error) = self.reach.look(self.settings.config.host_path_timeout, move || remove(&note)).await {
            tracing::warn!(container = id, error = error.chain(), "a part of an archive stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_removed_once() {
        let dir = tempfile::tempdir().unwrap();
        let (at, partial) = (dir.path().join("note"), dir.path().join(".x.tar.1"));
        remove(&at).unwrap();
        fs::write(&partial, "half").unwrap();
        note(&at, &partial).unwrap();
        remove(&at).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        note(&at, &partial).unwrap();
        remove(&at).unwrap(); // nothing had been begun yet
        assert!(!at.exists());
    }
}
