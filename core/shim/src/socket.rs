//! The shim's socket: its name, which everybody of a group finds by himself, and its making, which only one succeeds in.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// The path of a group's socket: the digest keeps it short, whatever the names are.
pub(crate) fn path(dir: &Path, daemon: &str, namespace: &str, group: &str) -> PathBuf {
    let digest = Sha256::digest(Path::new(daemon).join(namespace).join(group).as_os_str().as_bytes());
    dir.join(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A socket for a group.
pub(crate) enum Socket {
    /// Ours to serve.
    New(UnixListener),
    /// A shim serves it already.
    Served,
}

/// Makes the socket, or finds that somebody serves it. One that a dead shim left is made again.
pub(crate) fn make(path: &Path) -> Result<Socket, Error> {
    let failed = |doing| move |source: io::Error| Error::file(doing, path, source);
    let dir = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("making the folder of"))?;
    let _lock = lock(dir).map_err(failed("locking the folder of"))?;
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(Socket::Served);
            }
            fs::remove_file(path).map_err(failed("removing the dead socket"))?;
            UnixListener::bind(path)
        }
        result => result,
    };
    let listener = listener.map_err(failed("making the socket"))?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("protecting the socket"))?;
    Ok(Socket::New(listener))
}

/// Removes a socket that nobody serves.
pub(crate) fn remove_dead(path: &Path) {
    let Some(dir) = path.parent() else { return };
    let Ok(_lock) = lock(dir) else { return };
    if UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(path); // a later start removes it
    }
}

/// The socket of a shim, to be removed when it ends unless another shim's is there by then.
pub(crate) struct Own {
    path: PathBuf,
    /// The inode and when it was made: numbers are used again.
    inode: (u64, i64, i64),
}

fn inode(path: &Path) -> io::Result<(u64, i64, i64)> {
    fs::metadata(path).map(|found| (found.ino(), found.ctime(), found.ctime_nsec()))
}

impl Own {
    /// The socket that a listener is bound to; none for one without a name.
    pub(crate) fn of(listener: &UnixListener) -> Option<Self> {
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        let inode = inode(&path).ok()?;
        Some(Self { path, inode })
    }

    pub(crate) fn remove(&self) {
        let Some(Ok(_lock)) = self.path.parent().map(lock) else { return };
        if inode(&self.path).is_ok_and(|found| found == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Held while sockets of a folder come and go: two who find the same dead socket would remove each other's new one.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::open(dir)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_containerd_s() {
        // sha256 of "/run/containerd/containerd.sock/k8s.io/abc".
        let path = path(Path::new("/run/containerd/s"), "/run/containerd/containerd.sock", "k8s.io", "abc");
        let want = Sha256::digest(b"/run/containerd/containerd.sock/k8s.io/abc");
        let want: String = want.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(path, Path::new("/run/containerd/s").join(want));
        assert!(path.as_os_str().len() < 100);
    }

    #[test]
    fn one_serves_and_the_dead_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/s");
        let Socket::New(first) = make(&path).unwrap() else { panic!("nobody serves yet") };
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(make(&path).unwrap(), Socket::Served));
        remove_dead(&path);
        assert!(path.exists(), "it is served");
        let own = Own::of(&first).unwrap();
        drop(first);
        let Socket::New(second) = make(&path).unwrap() else { panic!("the first one is dead") };
        own.remove();
        assert!(path.exists(), "it is another one's by now");
        let own = Own::of(&second).unwrap();
        drop(second);
        remove_dead(&path);
        assert!(!path.exists());
        own.remove();
    }
}
