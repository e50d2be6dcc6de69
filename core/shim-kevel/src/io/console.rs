//! The socket on which an OCI runtime hands over the terminal that it made in the container.

use std::{
    fs, io,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};

use crate::error::{Error, Result};

/// How long the runtime may take; it has ended by then, so it has sent it.
const LIMIT: Duration = Duration::from_secs(10);

/// The socket, in the bundle. Paths of bundles are longer than addresses of sockets may be, so it is reached through a
/// descriptor of the bundle.
pub(crate) struct Socket {
    listener: UnixListener,
    name: String,
    bundle: OwnedFd,
    file: PathBuf,
}

impl Socket {
    pub(crate) fn new(bundle: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let failed = |error: io::Error| Error::system("making the console socket", error);
        let name = format!("pty{}.sock", COUNT.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(bundle, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        let listener = UnixListener::bind(path).map_err(failed)?;
        Ok(Self { listener, file: bundle.join(&name), name, bundle: directory })
    }

    /// The path by which other processes reach it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}/{}", std::process::id(), self.bundle.as_raw_fd(), self.name).into()
    }

    /// Takes the terminal, set to never block.
    pub(crate) async fn receive(self) -> Result<OwnedFd> {
        let failed = |error: io::Error| Error::system("receiving the terminal", error);
        let receive = async {
            let (stream, _) = self.listener.accept().await?;
            loop {
                stream.readable().await?;
                match stream.try_io(Interest::READABLE, || descriptor(&stream)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            }
        };
        let terminal = match tokio::time::timeout(LIMIT, receive).await {
            Ok(result) => result.map_err(failed)?,
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        super::nonblocking(&terminal).map_err(failed)?;
        Ok(terminal)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file); // goes with the bundle
    }
}

fn descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    Err(io::Error::other("the runtime sent none"))
}
