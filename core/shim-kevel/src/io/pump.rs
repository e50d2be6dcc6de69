//! Carries bytes: from pipe to pipe within the kernel, and between terminals and pipes. A buffer exists only while there
//! are bytes.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    pipe::{SpliceFlags, splice},
};
use tokio::{
    io::{AsyncWriteExt as _, unix::AsyncFd},
    net::unix::pipe::{Receiver, Sender},
};

use super::target::Target;

/// The most that is moved at a time, so that one talkative container does not hold up the others.
const CHUNK: usize = 64 << 10;
/// The most that is read from or for a terminal at a time.
const SCREEN: usize = 4 << 10;

/// Carries output to its end.
pub(super) async fn output(from: Receiver, to: Target) {
    let result = match &to {
        Target::Pipe(to, _reader) => pipe_to_pipe(&from, to).await,
        Target::File(file) => pipe_to_file(&from, file).await,
        Target::Nothing => Ok(()),
    };
    if let Err(error) = result {
        tracing::warn!(%error, "output is carried no longer");
    }
}

/// Carries input to its end, or until nobody reads it.
pub(super) async fn input(from: Receiver, to: Sender) {
    match pipe_to_pipe(&from, &to).await {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            tracing::warn!(%error, "input is carried no longer");
        }
        _ => {}
    }
}

async fn pipe_to_pipe(from: &Receiver, to: &Sender) -> io::Result<()> {
    loop {
        from.readable().await?;
        to.writable().await?;
        let moved = from.try_io(|| match splice(from, None, to, None, CHUNK, SpliceFlags::NONBLOCK) {
            Ok(moved) => Ok(Some(moved)),
            Err(Errno::INTR) => Ok(None),
            // Either side may be why; only the one that is not ready is waited for again.
            Err(Errno::AGAIN) if ready(from, PollFlags::IN) => Ok(None),
            Err(error) => Err(error.into()),
        });
        match moved {
            Ok(Some(0)) => return Ok(()),
            Ok(Some(_)) => {}
            Ok(None) => {
                let full = || if ready(to, PollFlags::OUT) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
                let _ = to.try_io(full); // only to forget that it was ready
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn pipe_to_file(from: &Receiver, mut to: &File) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut buffer = [0; SCREEN];
        match from.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn ready(descriptor: impl AsFd, what: PollFlags) -> bool {
    let mut descriptors = [PollFd::new(&descriptor, what)];
    poll(&mut descriptors, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}

/// Carries what a terminal shows, until every process has let go of it.
pub(super) async fn from_terminal(terminal: Arc<AsyncFd<OwnedFd>>, mut to: Target) {
    while let Ok(mut ready) = terminal.readable().await {
        let mut buffer = [0; SCREEN];
        let count = match rustix::io::read(terminal.get_ref(), &mut buffer) {
            Ok(0) | Err(Errno::IO) => return, // the last one has let go
            Ok(count) => count,
            Err(Errno::AGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(error) => return tracing::warn!(%error, "a terminal is carried no longer"),
        };
        let written = match &mut to {
            Target::Pipe(to, _reader) => to.write_all(&buffer[..count]).await,
            Target::File(file) => file.write_all(&buffer[..count]),
            Target::Nothing => Ok(()),
        };
        if let Err(error) = written {
            return tracing::warn!(%error, "a terminal is carried no longer");
        }
    }
}

/// Carries what is typed, until the FIFO ends.
pub(super) async fn to_terminal(from: Receiver, terminal: Arc<AsyncFd<OwnedFd>>) {
    while from.readable().await.is_ok() {
        let mut buffer = [0; SCREEN];
        let count = match from.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return tracing::warn!(%error, "input is carried no longer"),
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let Ok(mut ready) = terminal.writable().await else { return };
            match rustix::io::write(terminal.get_ref(), rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return, // everybody has let go
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::OpenOptionsExt as _, time::Duration};

    use rustix::fs::OFlags;

    use super::*;
    use crate::io::{Wanted, pipe, receiver, target::Input};

    fn fifo(dir: &std::path::Path, name: &str) -> String {
        let path = dir.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path.display().to_string()
    }

    #[tokio::test]
    async fn nothing_is_lost_when_the_reader_comes_late_and_goes_for_a_while() {
        const BYTES: usize = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let name = fifo(dir.path(), "out");
        let (ours, its) = pipe((0, 0)).unwrap();
        let carried = tokio::spawn(output(receiver(ours).unwrap(), Target::open(&name).unwrap()));
        let writing = std::thread::spawn(move || File::from(its).write_all(&vec![7; BYTES]).unwrap());
        let mut read = 0;
        // One reader after the other, each for a part; between them nobody has the FIFO open but us.
        while read < BYTES {
            let name = name.clone();
            let reader = tokio::task::spawn_blocking(move || {
                let flags = OFlags::NONBLOCK.bits().cast_signed();
                let mut file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(name).unwrap();
                let mut buffer = vec![0; 100_000];
                match file.read(&mut buffer) {
                    Ok(count) => {
                        assert!(buffer[..count].iter().all(|byte| *byte == 7));
                        count
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        0
                    }
                }
            });
            read += reader.await.unwrap();
        }
        assert_eq!(read, BYTES);
        writing.join().unwrap();
        carried.await.unwrap();
    }

    #[tokio::test]
    async fn input_ends_when_both_writers_have_closed() {
        let dir = tempfile::tempdir().unwrap();
        let name = fifo(dir.path(), "in");
        let Input { fifo, held } = Input::open(&name).unwrap();
        let (its, ours) = pipe((0, 0)).unwrap();
        let carried = tokio::spawn(input(fifo, crate::io::sender(ours).unwrap()));
        for text in ["one", "two"] {
            std::fs::OpenOptions::new().write(true).open(&name).unwrap().write_all(text.as_bytes()).unwrap();
        }
        assert!(
            tokio::time::timeout(Duration::from_millis(50), async {
                while !carried.is_finished() {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .is_err()
        );
        drop(held);
        carried.await.unwrap();
        let mut text = [0; 16];
        let count = File::from(its).read(&mut text).unwrap();
        assert_eq!(&text[..count], b"onetwo");
    }

    #[tokio::test]
    async fn files_get_both_streams_at_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/out");
        let uri = format!("file://{}", path.display());
        let wanted = Wanted { stdout: uri.clone(), stderr: uri, ..Wanted::default() };
        for text in ["one", "two"] {
            let (ours, its) = pipe((0, 0)).unwrap();
            let carried = tokio::spawn(output(receiver(ours).unwrap(), Target::open(&wanted.stderr).unwrap()));
            File::from(its).write_all(text.as_bytes()).unwrap();
            carried.await.unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), "onetwo");
    }
}
