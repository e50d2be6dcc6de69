//! The directories of snapshots: made, put aside, deleted. Everything here blocks.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{
    delete::delete,
    error::{Error, Result},
};

const REMOVED: &str = "rm-";

/// `<root>/snapshots`.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Makes it and what is above when missing; nobody but root may look in.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let path = root.join("snapshots");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| Error::io(format!("making {path:?}"), error))?;
        Ok(Self(path))
    }

    /// Where the snapshot of this number is.
    pub(crate) fn of(&self, number: u64) -> PathBuf {
        self.0.join(number.to_string())
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        Ok(self.entries()?.is_empty())
    }

    /// The highest number of a directory, one put aside included; 0 for none. A new snapshot must not get the number of
    /// a leftover: it would be deleted with it.
    pub(crate) fn highest(&self) -> Result<u64> {
        let numbers = self.entries()?.into_iter().filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            name.strip_prefix(REMOVED).unwrap_or(name).parse::<u64>().ok()
        });
        Ok(numbers.max().unwrap_or(0))
    }

    fn entries(&self) -> Result<Vec<fs::DirEntry>> {
        fs::read_dir(&self.0)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|error| Error::io(format!("listing {:?}", self.0), error))
    }

    /// Takes a snapshot's directory out of the way, at once and whatever its size. None is fine.
    pub(crate) fn put_aside(&self, number: u64) -> Result<()> {
        let (from, to) = (self.of(number), self.0.join(format!("{REMOVED}{number}")));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("putting {from:?} aside"), error))
            }
            _ => Ok(()),
        }
    }

    /// Deletes what was put aside, and every directory that belongs to nobody. `uses` is asked after the directories
    /// were listed, so that one made meanwhile is not taken for a leftover. Goes on past failures; the first is told.
    pub(crate) fn sweep(&self, uses: impl FnOnce() -> BTreeSet<u64>) -> Result<()> {
        let entries = self.entries()?;
        let uses = uses();
        let mut result = Ok(());
        for entry in entries {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            if number.is_some_and(|number| uses.contains(&number)) {
                continue;
            }
            if let Err(error) = delete(&entry.path())
                && result.is_ok()
            {
                result = Err(error);
            }
        }
        result
    }
}
