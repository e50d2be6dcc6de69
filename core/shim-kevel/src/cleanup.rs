//! `delete`: ends and removes what a container whose shim is gone has left, from what its bundle says.

use std::process::Stdio;

use kevel_shim::{Delete, Deleted};

use crate::{
    container::unmount,
    error::{Error, Result},
    record,
    runtime::{self, last_error},
};

/// Does it; answers how the container had ended.
pub(crate) fn delete(delete: &Delete) -> Result<Deleted> {
    let bundle = &delete.bundle;
    let options = record::read_options(bundle)?;
    let log = bundle.join("delete.json");
    let root = options.state(&delete.facts.namespace);
    let mut command = runtime::command(options.binary(), &root, &log, options.systemd_cgroup);
    command.args(["delete", "--force", &delete.facts.id]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status();
    let status = status.map_err(|error| Error::system(format!("running {} delete", options.binary()), error))?;
    let said = if status.success() { None } else { last_error(&log, 0).or_else(|| Some(status.to_string())) };
    let removed = match said {
        Some(said) if !said.contains("does not exist") => Err(Error::Runtime { verb: "delete", said }),
        _ => Ok(()),
    };
    unmount(&bundle.join("rootfs"))?; // whatever the runtime says
    removed?;
    if let Some((pid, exit)) = record::read_exit(bundle)? {
        return Ok(Deleted { pid, status: exit.status, at: exit.at });
    }
    Ok(Deleted::killed(record::read_pid(&record::pid_file(bundle))?.unwrap_or(0)))
}
