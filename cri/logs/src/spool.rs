//! What was read of a stream and is in no log yet, kept where the successor of a killed daemon finds it.
//!
//! Bytes go from the pipe into a file by splice, which a process that is killed has either done or not: at every moment
//! each byte is in the pipe or in the file. Byte n of the stream is n bytes behind the file's first page, so that the
//! file's length says how much was ever read; what is logged makes room at the front. The first page has the [`Mark`]:
//! how much is logged, and while lines are being written, how to tell from the log whether they were. So whatever a
//! daemon was doing when it was killed, the next one goes on after the last line that is whole. The file is as durable as
//! the containers are: not over a reboot.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock},
    pipe::{SpliceFlags, splice},
};
use tokio::net::unix::pipe;

use crate::{
    log::Log,
    mark::{self, Intent, Mark},
};

/// Where the stream begins in the file.
const HEAD: u64 = 4096;

/// What is logged is given back to the file system in pieces of at least this while output comes without a pause.
const BUSY: u64 = 256 << 10;

/// And of this when there is one.
const IDLE: u64 = 16 << 10;

/// One stream's file.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: File,
    mark: Mark,
    /// How much of the stream was read, how much of that was handed out, and how much is no longer in the file.
    end: u64,
    handed: u64,
    freed: u64,
}

impl Spool {
    /// Opens or makes the file. Waits while another part of this process that is about to end has it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?);
        flock(&file, FlockOperation::LockExclusive)?;
        let end = file.metadata()?.len().checked_sub(HEAD);
        let found = end.and_then(|end| Some((end, mark::read(&file).filter(|mark| mark.fits(end))?)));
        let (end, mark) = match found {
            Some(found) => found,
            None => (0, begin(&file)?),
        };
        Ok(Self { path: path.to_path_buf(), file, mark, end, handed: mark.logged, freed: 0 })
    }

    /// Looks at what the log has of lines that a killed daemon was writing: all, or it has none afterwards. Every stream of a
    /// log must be settled before any goes on.
    pub(crate) fn settle(&mut self, log: &Log) -> io::Result<()> {
        let Some(intent) = self.mark.intent else { return Ok(()) };
        let file = log.find(intent.inode)?;
        let written = match &file {
            // One that is gone, or was emptied, has nothing.
            Some(file) => file.metadata()?.len().saturating_sub(intent.before),
            None => 0,
        };
        if written >= intent.size {
            self.mark.logged = intent.to;
        } else if let Some(file) = file.filter(|_| written > 0) {
            file.set_len(intent.before)?;
        }
        self.mark.intent = None;
        self.mark.write(&self.file)?;
        self.handed = self.mark.logged;
        Ok(())
    }

    /// Whether something was read and not handed out: the daemon before came no further.
    pub(crate) fn has_backlog(&self) -> bool {
        self.handed < self.end
    }

    /// The next bytes of the stream; 0 is its end.
    pub(crate) fn read(&mut self, pipe: &pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.has_backlog() {
            let mut at = HEAD + self.end;
            let moved = pipe
                .try_io(|| Ok(splice(pipe, None, &self.file, Some(&mut at), buffer.len(), SpliceFlags::NONBLOCK)?))?;
            self.end += size(moved);
        }
        let count = usize::try_from(self.end - self.handed).unwrap_or(usize::MAX).min(buffer.len());
        self.file.read_exact_at(&mut buffer[..count], HEAD + self.handed)?;
        self.handed += size(count);
        Ok(count)
    }

    /// Lines are about to be written to `log`: `bytes` of them, with all that was handed out but the last `pending`.
    pub(crate) fn begin(&mut self, log: &File, bytes: usize, pending: usize) -> io::Result<()> {
        let now = log.metadata()?;
        let to = self.handed - size(pending);
        self.mark.intent = Some(Intent { to, inode: now.ino(), before: now.len(), size: size(bytes) });
        self.mark.write(&self.file)
    }

    /// They are written, or the disk does not take them.
    pub(crate) fn done(&mut self, pending: usize) -> io::Result<()> {
        self.mark = Mark { logged: self.handed - size(pending), intent: None };
        self.mark.write(&self.file)?;
        self.free(BUSY)
    }

    /// Output pauses.
    pub(crate) fn idle(&mut self) -> io::Result<()> {
        self.free(IDLE)
    }

    /// The file goes; what is read from now on is lost with the daemon.
    pub(crate) fn give_up(self) {
        let _ = std::fs::remove_file(&self.path); // it goes with its directory at the latest
    }

    fn free(&mut self, least: u64) -> io::Result<()> {
        let logged = self.mark.logged / HEAD * HEAD;
        let count = logged - self.freed;
        if count >= least {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.file, flags, HEAD + self.freed, count)?;
            self.freed = logged;
        }
        Ok(())
    }
}

/// An empty stream. A file system that cannot give back what is logged says so now.
fn begin(file: &File) -> io::Result<Mark> {
    file.set_len(0)?;
    let mark = Mark::default();
    mark.write(file)?;
    file.set_len(HEAD)?;
    fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, HEAD, HEAD)?;
    Ok(mark)
}

fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
