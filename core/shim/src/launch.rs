//! `start`: the socket, the process that serves it, and the answer. Runs in the daemon's child, which ends right after.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use command_fds::{CommandFdExt as _, FdMapping};

use crate::{
    Error, Shim, Start, reply, sched, score,
    serve::LISTENER,
    socket::{self, Socket},
    write_small,
};

/// The files in the bundle in which daemons before containerd 1.7, and people, find the shim.
pub(crate) const ADDRESS: &str = "address";
const PID: &str = "shim.pid";

/// Does it; answers what goes to standard output.
pub(crate) fn launch<S: Shim>(shim: &S, start: &Start) -> Result<Vec<u8>, Error> {
    let group = shim.group(start)?.unwrap_or_else(|| start.facts.id.clone());
    let path = socket::path(&start.socket_dir, &start.facts.address, &start.facts.namespace, &group);
    let address = format!("unix://{}", path.display());
    if let Socket::New(listener) = socket::make(&path)? {
        let served = serve(shim, start, listener.into());
        if let Err(error) = served {
            socket::remove_dead(&path);
            return Err(error);
        }
    }
    write_small(&start.bundle.join(ADDRESS), address.as_bytes())?;
    Ok(reply::encode(start.dialect, &address))
}

/// Starts the process that serves. It is killed again when what follows fails.
fn serve<S: Shim>(shim: &S, start: &Start, listener: OwnedFd) -> Result<(), Error> {
    let failed = |source| Error::system("starting the shim's process", source);
    let mut child = spawn(start, listener).map_err(failed)?;
    let settle = |child: &Child| {
        score::behind(parent(), child.id())
            .map_err(|source| Error::system("adjusting the shim's oom score", source))?;
        write_small(&start.bundle.join(PID), child.id().to_string().as_bytes())?;
        shim.started(start, child.id())
    };
    let settled = settle(&child);
    if settled.is_err() {
        let _ = child.kill(); // it may have ended by itself
        let _ = child.wait();
    }
    settled
}

fn spawn(start: &Start, listener: OwnedFd) -> io::Result<Child> {
    let facts = &start.facts;
    if facts.sched_core {
        sched::own_cookie()?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["-namespace", &facts.namespace, "-id", &facts.id, "-address", &facts.address]);
    if facts.debug {
        command.arg("-debug");
    }
    command
        .env("TTRPC_ADDRESS", &facts.ttrpc_address)
        .current_dir(&start.bundle)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mapping = FdMapping { parent_fd: listener, child_fd: LISTENER };
    command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
    command.spawn()
}

fn parent() -> i32 {
    rustix::process::getppid().map_or(1, rustix::process::Pid::as_raw_pid)
}

/// The socket that a bundle's shim was reached at, as noted.
pub(crate) fn noted(bundle: &Path) -> Option<std::path::PathBuf> {
    let noted = crate::read_small(&bundle.join(ADDRESS)).ok()??;
    let noted = String::from_utf8(noted).ok()?;
    noted.trim().strip_prefix("unix://").map(Into::into)
}
