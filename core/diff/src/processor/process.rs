//! One stream processor at work. It is fed by a thread, and killed when it does nothing for too long or nobody reads on.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    os::fd::OwnedFd,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt as _, FdMapping};
use kevel_model::{Any, Error, Result};
use prost::Message as _;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, pidfd_open},
    time::Timespec,
};

use super::Processor;

/// How long a processor may take over what it has been given, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at whether it is stuck.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How much of what it complains is kept, in bytes.
const MAX_WORDS: u64 = 8 << 10;
/// Bytes handed to it at once.
const PIECE: usize = 256 << 10;

/// A running processor; reading gives its output.
pub(super) struct Process {
    name: String,
    child: Child,
    output: ChildStdout,
    feeder: Option<JoinHandle<io::Result<()>>>,
    words: Option<JoinHandle<String>>,
    /// Whether the feeder waits for the layer, and not for the processor.
    hungry: Arc<AtomicBool>,
    moved: Instant,
}

impl Process {
    /// Starts a processor on `source`.
    pub(super) fn start(
        name: &str,
        processor: &Processor,
        media_type: &str,
        payload: Option<Any>,
        source: Box<dyn Read + Send>,
    ) -> Result<Self> {
        let doing = |what: &str| format!("stream processor {name}: {what}");
        let mut command = Command::new(&processor.path);
        command.args(&processor.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(processor.env.iter().filter_map(|one| one.split_once('=')));
        command.env("STREAM_PROCESSOR_MEDIATYPE", media_type);
        if let Some(payload) = payload {
            let parent_fd = file_of(payload).map_err(|error| Error::io(doing("writing its payload"), error))?;
            command
                .fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }])
                .map_err(|error| Error::internal(doing("passing its payload")).with_source(error))?;
        }
        let starting = || doing(&format!("starting {}", processor.path));
        let mut child = command.spawn().map_err(|error| Error::io(starting(), error))?;
        let (Some(input), Some(output), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::internal(doing("it has no pipes")));
        };
        let hungry = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&hungry);
        let feeder = thread("layer-feed", move || feed(source, input, &told));
        let words = thread("layer-words", move || listen(stderr));
        let mut process =
            Self { name: name.to_owned(), child, output, feeder: None, words: None, hungry, moved: Instant::now() };
        process.feeder = Some(feeder.map_err(|error| Error::io(doing("starting a thread"), error))?);
        process.words = Some(words.map_err(|error| Error::io(doing("starting a thread"), error))?);
        Ok(process)
    }

    /// Waits for output, or until the processor has had time enough.
    fn wait(&mut self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(&LOOK)) {
                Ok(0) if self.hungry.load(Ordering::Acquire) => self.moved = Instant::now(),
                Ok(0) if self.moved.elapsed() > PATIENCE => {
                    let stuck = format!("stream processor {}: nothing came out of it for {PATIENCE:?}", self.name);
                    return Err(io::Error::new(io::ErrorKind::TimedOut, stuck));
                }
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Its output has ended: whether it is all there.
    fn finish(&mut self) -> io::Result<()> {
        let Some(feeder) = self.feeder.take() else { return Ok(()) };
        self.end_in_time();
        let status = self.child.wait()?;
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        if !status.success() {
            let said = if words.is_empty() { String::new() } else { format!(": {words}") };
            return Err(io::Error::other(format!("stream processor {}: {status}{said}", self.name)));
        }
        match feeder.join() {
            Ok(fed) => fed,
            Err(_) => Err(io::Error::other(format!("stream processor {}: its feeder died", self.name))),
        }
    }

    /// Kills it unless it ends by itself soon.
    fn end_in_time(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let Some(Ok(handle)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                _ => return,
            }
        }
        let _ = self.child.kill(); // it has ended this moment, then
    }
}

impl Read for Process {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.feeder.is_none() || buffer.is_empty() {
            return Ok(0);
        }
        self.wait()?;
        let length = self.output.read(buffer)?;
        self.moved = Instant::now();
        if length == 0 {
            self.finish()?;
        }
        Ok(length)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.feeder.is_some() {
            let _ = self.child.kill(); // it may have ended
            let _ = self.child.wait(); // no zombie stays
        }
    }
}

fn thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(work)
}

/// The encoded payload as a file to read from the beginning.
fn file_of(payload: Any) -> io::Result<OwnedFd> {
    let encoded = prost_types::Any { type_url: payload.type_url, value: payload.value }.encode_to_vec();
    let mut file = File::from(memfd_create("payload", MemfdFlags::CLOEXEC)?);
    file.write_all(&encoded)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

/// Hands the layer to the processor. One that wants no more of it has seen enough.
fn feed(mut source: Box<dyn Read + Send>, mut input: ChildStdin, hungry: &AtomicBool) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        hungry.store(true, Ordering::Release);
        let length = match source.read(&mut piece) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hungry.store(false, Ordering::Release);
        if length == 0 {
            return Ok(());
        }
        match input.write_all(&piece[..length]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
}

/// What it says on standard error, shortened and printable.
fn listen(mut stderr: impl Read) -> String {
    let mut words = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "limited to what is shown")]
    let _ = stderr.by_ref().take(MAX_WORDS).read_to_end(&mut words); // what was read before it broke is shown
    let _ = io::copy(&mut stderr, &mut io::sink()); // so that it is never blocked by its own words
    let text = String::from_utf8_lossy(&words);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
