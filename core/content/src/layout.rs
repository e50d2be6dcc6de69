//! Where things are below the store's root, and the small files of an ingest. Everything here blocks.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kevel_contract::content::{Info, Status};
use kevel_model::{Digest, Labels};

use crate::{
    error::{Error, MAX_REFERENCE, Result},
    time,
};

/// The directories of a store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The file of an ingest that holds its data.
pub(crate) const DATA: &str = "data";
const REFERENCE: &str = "ref";
const STARTED: &str = "startedat";
const UPDATED: &str = "updatedat";
const TOTAL: &str = "total";

impl Layout {
    /// Makes what is missing, and removes ingests that a crash left without a name or data.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let layout = Self { root: root.to_owned() };
        for dir in [layout.ingests(), layout.blobs().join("sha256")] {
            fs::create_dir_all(&dir).map_err(|error| Error::io(format!("making {dir:?}"), error))?;
        }
        for dir in [root, &layout.blobs()] {
            let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|error| Error::io(format!("making {dir:?} durable"), error))?;
        }
        for dir in directories(&layout.ingests())? {
            if fs::metadata(dir.join(DATA)).is_err() || fs::metadata(dir.join(REFERENCE)).is_err() {
                remove_tree(&dir)?;
            }
        }
        Ok(layout)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm()).join(digest.encoded())
    }

    pub(crate) fn ingest(&self, reference: &str) -> PathBuf {
        self.ingests().join(Digest::sha256(reference.as_bytes()).encoded())
    }

    pub(crate) fn info(&self, digest: &Digest) -> Result<Info> {
        let path = self.blob(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(info(digest.clone(), &metadata)),
            Ok(_) => Err(Error::NoBlob(digest.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoBlob(digest.clone())),
            Err(error) => Err(Error::io(format!("looking at {path:?}"), error)),
        }
    }

    pub(crate) fn exists(&self, digest: &Digest) -> Result<bool> {
        match self.info(digest) {
            Ok(_) => Ok(true),
            Err(Error::NoBlob(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every blob, in order of digest. Files that are no blobs are passed over.
    pub(crate) fn infos(&self) -> Result<Vec<Info>> {
        let mut infos = vec![];
        for directory in directories(&self.blobs())? {
            let Some(algorithm) = directory.file_name().and_then(|name| name.to_str()) else { continue };
            for entry in entries(&directory)? {
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else { continue };
                match entry.metadata() {
                    Ok(metadata) if metadata.is_file() => infos.push(info(digest, &metadata)),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {} // deleted meanwhile
                    Err(error) => return Err(Error::io(format!("looking at content {digest}"), error)),
                }
            }
        }
        infos.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(infos)
    }

    pub(crate) fn status(&self, reference: &str) -> Result<Status> {
        match status(&self.ingest(reference))? {
            Some(status) if status.reference == reference => Ok(status),
            _ => Err(Error::NoIngest(reference.to_owned())),
        }
    }

    /// Every ingest, in order of reference.
    pub(crate) fn statuses(&self) -> Result<Vec<Status>> {
        let mut all = vec![];
        for directory in directories(&self.ingests())? {
            all.extend(status(&directory)?);
        }
        all.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(all)
    }

    /// Writes the small files of a new ingest, over whatever was in its place.
    pub(crate) fn begin(&self, reference: &str, total: u64) -> Result<Status> {
        let dir = self.ingest(reference);
        remove_tree(&dir)?;
        let write = || {
            let now = SystemTime::now();
            fs::create_dir(&dir)?;
            fs::write(dir.join(STARTED), time::format(now))?;
            fs::write(dir.join(UPDATED), time::format(now))?;
            if total > 0 {
                fs::write(dir.join(TOTAL), total.to_string())?;
            }
            fs::write(dir.join(DATA), b"")?;
            fs::write(dir.join(REFERENCE), reference)?;
            Ok(now)
        };
        let now: SystemTime =
            write().map_err(|error: io::Error| Error::io(format!("making ingest {reference:?}"), error))?;
        let reference = reference.to_owned();
        Ok(Status { reference, offset: 0, total, expected: None, started_at: now, updated_at: now })
    }

    /// Notes when the ingest was written to last; of no consequence when it fails.
    pub(crate) fn touch(&self, reference: &str) {
        let path = self.ingest(reference).join(UPDATED);
        if let Err(error) = fs::write(&path, time::format(SystemTime::now())) {
            tracing::debug!(path = %path.display(), error = %error, "time of an ingest not noted");
        }
    }

    pub(crate) fn abort(&self, reference: &str) -> Result<()> {
        let dir = self.ingest(reference);
        if fs::symlink_metadata(&dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(Error::NoIngest(reference.to_owned()));
        }
        remove_tree(&dir)
    }

    pub(crate) fn delete(&self, digest: &Digest) -> Result<()> {
        fs::remove_file(self.blob(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoBlob(digest.clone()),
            _ => Error::io(format!("deleting content {digest}"), error),
        })
    }
}

/// Refuses references that can't name an ingest.
pub(crate) fn check_reference(reference: &str) -> Result<()> {
    match reference.len() {
        1..=MAX_REFERENCE => Ok(()),
        length => Err(Error::Reference(length)),
    }
}

fn info(digest: Digest, metadata: &fs::Metadata) -> Info {
    let time = modified(metadata);
    Info { digest, size: metadata.len(), created_at: time, updated_at: time, labels: Labels::new() }
}

fn modified(metadata: &fs::Metadata) -> SystemTime {
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, u32::try_from(metadata.mtime_nsec()).unwrap_or(0))
}

/// What an ingest's directory says; nothing where it is no whole ingest.
fn status(dir: &Path) -> Result<Option<Status>> {
    let Some(reference) = small_file(&dir.join(REFERENCE))?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let metadata = match fs::metadata(dir.join(DATA)) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("looking at ingest {reference:?}"), error)),
    };
    let total = small_file(&dir.join(TOTAL))?.and_then(|text| text.parse().ok()).unwrap_or(0);
    let started_at = small_file(&dir.join(STARTED))?.and_then(|text| time::parse(&text));
    let updated_at = small_file(&dir.join(UPDATED))?.and_then(|text| time::parse(&text));
    let modified = modified(&metadata); // newer than the file says while data is being written
    let started_at = started_at.unwrap_or(modified);
    Ok(Some(Status {
        reference,
        offset: metadata.len(),
        total,
        expected: None,
        started_at,
        // A file's time comes from a coarser clock, and may lie before the start.
        updated_at: updated_at.unwrap_or(modified).max(modified).max(started_at),
    }))
}

/// A file of ours that is never longer than a reference; nothing where it is not there, longer, or no text.
fn small_file(path: &Path) -> Result<Option<String>> {
    let doing = |error| Error::io(format!("reading {path:?}"), error);
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_REFERENCE as u64 => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(doing(error)),
    }
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(doing(error)),
    }
}

fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>> {
    fs::read_dir(dir)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|error| Error::io(format!("listing {dir:?}"), error))
}

fn directories(dir: &Path) -> Result<Vec<PathBuf>> {
    let all = entries(dir)?.into_iter();
    Ok(all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect())
}

pub(crate) fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(format!("removing {dir:?}"), error)),
        _ => Ok(()),
    }
}
