//! A program that takes output: the `binary://` of containerd. It gets stdout, stderr and a pipe to say that it is ready on
//! the descriptors 3, 4 and 5, and the container's id and namespace in its environment, which is otherwise empty.

use std::{
    io,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::Duration,
};

use command_fds::{CommandFdExt as _, FdMapping};
use kevel_shim::Child;
use rustix::process::{Pid, Signal, kill_process};

use super::{For, pipe, receiver, uri::Uri};
use crate::error::{Error, Result};

/// How long it may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// How long it has after the end of its input, before it is asked to end, and before it is ended.
const GRACE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

/// A running one.
pub(super) struct Logger(Child);

impl Logger {
    /// Starts it; answers the writing ends of its input.
    pub(super) async fn start(uri: &Uri, who: &For<'_>) -> Result<(Self, [OwnedFd; 2])> {
        let failed = |error: io::Error| Error::system(format!("starting the logging program {:?}", uri.path), error);
        let (stdout, write_stdout) = pipe(who.owner)?;
        let (stderr, write_stderr) = pipe(who.owner)?;
        let (ready, say_ready) = pipe((0, 0))?;
        let mut command = Command::new(&uri.path);
        command
            .args(&uri.words)
            .env_clear()
            .env("CONTAINER_ID", who.id)
            .env("CONTAINER_NAMESPACE", who.namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mappings = [(stdout, 3), (stderr, 4), (say_ready, 5)];
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.into()).map_err(|error| failed(io::Error::other(error)))?;
        let (child, _) = who.reaper.spawn(&mut command).map_err(failed)?;
        drop(command); // with our copies of its ends
        let logger = Self(child);
        let ready = receiver(ready)?;
        let said = tokio::time::timeout(READY, async {
            let mut byte = [0];
            loop {
                ready.readable().await?;
                match ready.try_read(&mut byte) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            }
        });
        let why = match said.await {
            Ok(Ok(0)) if uri.must_say_ready() => "it ended, or closed descriptor 5, before it was ready",
            Ok(Ok(_)) => return Ok((logger, [write_stdout, write_stderr])),
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => "it was not ready in time",
        };
        logger.signal(Signal::KILL);
        Err(failed(io::Error::other(why)))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0.pid.try_into().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal); // it has ended
        }
    }

    /// Waits for its end, whose input has ended; then asks for it.
    pub(super) async fn end(self) {
        let pid = self.0.pid.try_into().ok().and_then(Pid::from_raw);
        let exit = self.0.exit();
        tokio::pin!(exit);
        for (grace, signal) in GRACE.into_iter().zip([Signal::TERM, Signal::KILL]) {
            if tokio::time::timeout(grace, &mut exit).await.is_ok() {
                return;
            }
            if let Some(pid) = pid {
                let _ = kill_process(pid, signal); // it has ended meanwhile
            }
        }
    }
}
