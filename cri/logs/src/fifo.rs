//! Named pipes between the daemon and a shim.
//!
//! A reader of a pipe that nobody writes to yet sees the end at once, and a writer without a reader fails to open. So
//! [`Fifos::open`] keeps both ends of each pipe open until the shim has opened them too ([`Keepers`]); from then on
//! the end of a stream means that the shim closed it.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use tokio::net::unix::pipe;

use crate::{
    error::{Error, Result},
    line::Stream,
};

/// The pipes of one process. A terminal has no standard error of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fifos {
    stdin: Option<PathBuf>,
    stdout: PathBuf,
    stderr: Option<PathBuf>,
}

/// The daemon's ends of the pipes.
#[derive(Debug)]
pub struct Pipes {
    /// What the process prints.
    pub stdout: pipe::Receiver,
    /// What it complains about; not with a terminal.
    pub stderr: Option<pipe::Receiver>,
    /// Must live until the shim has opened its ends.
    pub keepers: Keepers,
}

/// Both ends of every pipe. While this lives, no stream ends.
#[derive(Debug)]
pub struct Keepers {
    _outputs: Vec<OwnedFd>,
    /// Kept on, so that input does not end between two clients.
    pub(crate) stdin: Option<OwnedFd>,
}

impl Fifos {
    /// The names `<id>-stdin` and so on in `dir`, for pipes that exist already.
    pub fn at(dir: &Path, id: &str, stdin: bool, tty: bool) -> Self {
        let path = |stream: &str| dir.join(format!("{id}-{stream}"));
        Self { stdin: stdin.then(|| path("stdin")), stdout: path("stdout"), stderr: (!tty).then(|| path("stderr")) }
    }

    /// Makes the pipes, readable by their owner only. Leftovers of the same name are replaced; if one pipe cannot be
    /// made, none stays. `dir` must exist and nobody else may write to it.
    pub fn create(dir: &Path, id: &str, stdin: bool, tty: bool) -> Result<Self> {
        let fifos = Self::at(dir, id, stdin, tty);
        for path in fifos.all() {
            if let Err(source) = make(path) {
                // The first failure is the one to tell.
                let _ = fifos.remove();
                return Err(Error::Fifo { doing: "making", path: path.clone(), source });
            }
        }
        Ok(fifos)
    }

    /// The path for the shim, or empty.
    pub fn stdin(&self) -> String {
        name(self.stdin.as_ref())
    }

    /// The path for the shim.
    pub fn stdout(&self) -> String {
        name(Some(&self.stdout))
    }

    /// The path for the shim, or empty.
    pub fn stderr(&self) -> String {
        name(self.stderr.as_ref())
    }

    /// Where output is kept until it is logged.
    pub(crate) fn spool(&self, stream: Stream) -> Option<PathBuf> {
        let pipe = if stream == Stream::Stdout { Some(&self.stdout) } else { self.stderr.as_ref() };
        pipe.map(|path| spool(path))
    }

    /// Opens the daemon's ends without waiting for anybody. Needs a tokio runtime.
    pub fn open(&self) -> Result<Pipes> {
        let stdout = reader(&self.stdout)?;
        let stderr = self.stderr.as_deref().map(reader).transpose()?;
        let mut outputs = vec![descriptor(&self.stdout, OFlags::WRONLY)?];
        if let Some(path) = &self.stderr {
            outputs.push(descriptor(path, OFlags::WRONLY)?);
        }
        let stdin = self.stdin.as_deref().map(|path| descriptor(path, OFlags::RDWR)).transpose()?;
        Ok(Pipes { stdout, stderr, keepers: Keepers { _outputs: outputs, stdin } })
    }

    /// Opens the process's standard input for writing; the end of the last writer is the end of the input. Fails if
    /// nobody reads. Dropping it while [`Keepers`] or another writer live does not end the input.
    pub fn open_stdin(&self) -> Result<pipe::Sender> {
        let path = self.stdin.as_deref().ok_or(Error::NoStdin)?;
        let fd = descriptor(path, OFlags::WRONLY)?;
        pipe::Sender::from_owned_fd(fd).map_err(fail("opening", path))
    }

    /// Removes the pipes; those that are gone are fine. Goes on after a failure and tells the first.
    pub fn remove(&self) -> Result<()> {
        let mut result = Ok(());
        for path in self.all() {
            if let Err(source) = unlink(path).and_then(|()| unlink(&spool(path)))
                && result.is_ok()
            {
                result = Err(Error::Fifo { doing: "removing", path: path.clone(), source });
            }
        }
        result
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.stdin.iter().chain([&self.stdout]).chain(&self.stderr)
    }
}

fn spool(pipe: &Path) -> PathBuf {
    pipe.with_added_extension("spool")
}

fn unlink(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make(path: &Path) -> io::Result<()> {
    unlink(path)?;
    unlink(&spool(path))?;
    Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?)
}

fn reader(path: &Path) -> Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(descriptor(path, OFlags::RDONLY)?).map_err(fail("opening", path))
}

fn descriptor(path: &Path, access: OFlags) -> Result<OwnedFd> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from).map_err(fail("opening", path))
}

fn fail(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Fifo { doing, path: path.to_path_buf(), source }
}

fn name(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}
