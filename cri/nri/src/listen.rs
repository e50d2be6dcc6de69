//! The socket that plugins connect to.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use kevel_model::{Code, Error, Result};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{
    nri::Nri,
    register::{Origin, register},
};

/// How many connections may be without a plugin that is ready, at the same time; more wait in the backlog.
const UNREADY: usize = 32;
/// Between two attempts to accept, when the daemon is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the socket with mode 0600. What an earlier daemon left behind is replaced.
///
/// # Errors
/// [`Code::AlreadyExists`] when another process listens there.
pub(crate) async fn open(path: &Path) -> Result<UnixListener> {
    let failed = |doing: &str, error| Error::io(format!("NRI socket {}: {doing}", path.display()), error);
    if let Some(folder) = path.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed("making its folder", error))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed("looking at it", error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::failed_precondition(format!("NRI socket {}: exists and is none", path.display())));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            let message = format!("NRI socket {}: another process listens there", path.display());
            return Err(Error::new(Code::AlreadyExists, message));
        }
        Ok(_) => fs::remove_file(path).map_err(|error| failed("removing the old one", error))?,
    }
    let listener = UnixListener::bind(path).map_err(|error| failed("listening", error))?;
    let mode = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
    mode.map_err(|error| failed("giving it its mode", error))?;
    Ok(listener)
}

/// Makes a plugin of every connection until `stop`.
pub(crate) async fn accept(nri: Arc<Nri>, listener: UnixListener, stop: CancellationToken) {
    let unready = Arc::new(Semaphore::new(UNREADY));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async {
                let permit = unready.clone().acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (permit, Ok((stream, _))) => {
                let nri = nri.clone();
                tokio::spawn(async move {
                    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
                    tracing::debug!(pid, "an NRI plugin connects");
                    if let Err(error) = register(&nri, stream, Origin::default()).await {
                        tracing::warn!(pid, error = error.chain(), "an NRI plugin was not admitted");
                    }
                    drop(permit);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "accepting an NRI plugin");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_only_what_is_stale_and_lets_nobody_else_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/nri.sock");
        let first = open(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(open(&path).await.unwrap_err().is_already_exists());
        drop(first);
        open(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(open(&path).await.unwrap_err().code(), Code::FailedPrecondition);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
