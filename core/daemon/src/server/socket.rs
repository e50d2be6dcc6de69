//! Unix sockets: made with the right mode, and never taken from a daemon that still listens.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

/// The table of a listener on a Unix socket. The limit of a message's size is fixed, at CRI's 16 MiB for gRPC.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Socket {
    /// Path of the socket; when empty `kevel.sock` in the state directory, with `.ttrpc` added for ttrpc, and none for
    /// debug.
    pub(crate) address: String,
    /// Owner of the socket.
    pub(crate) uid: u32,
    /// Group of the socket.
    pub(crate) gid: u32,
}

impl Socket {
    /// The path alone, without a scheme.
    pub(super) fn path(&self) -> &Path {
        Path::new(self.address.strip_prefix("unix://").unwrap_or(&self.address))
    }

    /// Opens the socket.
    pub(super) async fn listen(&self) -> anyhow::Result<UnixListener> {
        listen(&self.address, self.uid, self.gid).await
    }
}

/// Listens at `path` with mode 0660, owned by `uid` and `gid`. What an earlier daemon left behind is replaced; the
/// socket of one that still listens is not, nor is anything that is no socket.
async fn listen(path: &str, uid: u32, gid: u32) -> anyhow::Result<UnixListener> {
    let path = Path::new(path.strip_prefix("unix://").unwrap_or(path));
    if !path.is_absolute() {
        bail!("address: {} is not an absolute path", path.display());
    }
    // A path this long can't be bound; say so instead of "invalid argument".
    if path.as_os_str().len() > 107 {
        bail!("address: {} is longer than the 107 bytes that a socket's path may have", path.display());
    }
    if let Some(folder) = path.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(folder);
        made.with_context(|| format!("making {}", folder.display()))?;
    }
    remove_stale(path).await?;
    let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .and_then(|()| std::os::unix::fs::chown(path, Some(uid), Some(gid)))
        .with_context(|| format!("giving {} its owner and mode", path.display()))?;
    Ok(listener)
}

async fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
        Ok(found) if !found.file_type().is_socket() => bail!("{} exists and is no socket", path.display()),
        Ok(_) => {}
    }
    if UnixStream::connect(path).await.is_ok() {
        bail!("{}: another process listens there", path.display());
    }
    fs::remove_file(path).with_context(|| format!("removing the old socket {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_only_what_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/k.sock");
        let text = path.to_str().unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let first = listen(text, uid, gid).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let busy = listen(text, uid, gid).await.unwrap_err().to_string();
        assert!(busy.ends_with("another process listens there"), "{busy}");
        drop(first);
        listen(text, uid, gid).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(listen(text, uid, gid).await.unwrap_err().to_string().ends_with("is no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert!(listen("relative.sock", uid, gid).await.is_err());
        assert!(listen(&format!("/{}", "x".repeat(120)), uid, gid).await.is_err());
    }
}
