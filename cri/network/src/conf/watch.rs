//! Waiting for changes of the configuration directory and of the plugin folders in it.

use crate::Error;
use futures::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders beyond this number are not watched.
const MAX_FOLDERS: usize = 256;

/// Watches one directory, which is created when it does not exist.
pub(crate) struct Watch {
    dir: PathBuf,
    events: EventStream<[u8; 4096]>,
}

impl Watch {
    /// From here on no change is missed; the caller reads the directory after this.
    pub(crate) fn new(dir: &Path) -> Result<Self, Error> {
        open(dir)
            .map(|events| Self { dir: dir.to_owned(), events })
            .map_err(|source| Error::Watch { path: dir.to_owned(), source })
    }

    /// Returns after something in the directory changed, or the directory itself was replaced.
    pub(crate) async fn changed(&mut self) -> Result<(), Error> {
        let failed = |source| Error::Watch { path: self.dir.clone(), source };
        let event = match self.events.next().await {
            Some(event) => event.map_err(failed)?,
            None => return Err(failed(io::Error::from(io::ErrorKind::UnexpectedEof))),
        };
        // A new folder or directory needs a watch of its own; a new set of watches is the simple way to have it.
        let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::Q_OVERFLOW;
        if event.mask.intersects(gone | EventMask::ISDIR) {
            self.events = open(&self.dir).map_err(failed)?;
        }
        Ok(())
    }
}

fn open(dir: &Path) -> io::Result<EventStream<[u8; 4096]>> {
    fs::create_dir_all(dir)?;
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    inotify.watches().add(dir, mask)?;
    for entry in fs::read_dir(dir)?.take(MAX_FOLDERS) {
        let path = entry?.path();
        if path.is_dir() {
            // It may be gone by now, which the watch on its parent tells.
            inotify.watches().add(&path, mask).ok();
        }
    }
    inotify.into_event_stream([0; 4096])
}
