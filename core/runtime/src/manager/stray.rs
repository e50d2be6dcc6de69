//! Shim processes that nobody can talk to: found by the bundle that they were started in, and killed.
//!
//! A shim keeps the working directory of its `start`, which is the bundle of its first container; nothing else does. So
//! a process in there is a shim even if it never told its process id.

use std::{fs, path::Path};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// Kills every process whose working directory is `bundle`. Blocks, for a look at every process.
pub(super) fn kill(bundle: &Path) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|_| works_in(&process.path(), bundle)) else { continue };
        // The descriptor keeps its process when the number is used again; the second look makes sure that it is the one.
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if !works_in(&process.path(), bundle) {
            continue;
        }
        match pidfd_send_signal(fd, Signal::KILL) {
            Ok(()) => tracing::warn!(?pid, ?bundle, "killed a shim that could not be talked to"),
            Err(Errno::SRCH) => {}
            Err(error) => tracing::warn!(?pid, ?bundle, %error, "a shim that could not be talked to stays"),
        }
    }
}

fn works_in(process: &Path, bundle: &Path) -> bool {
    fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == bundle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    #[test]
    fn only_what_works_in_the_bundle_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().canonicalize().unwrap().join("c1");
        fs::create_dir(&bundle).unwrap();
        let spawn = |place: &Path| Command::new("sleep").arg("60").current_dir(place).spawn().unwrap();
        let (mut inside, mut outside) = (spawn(&bundle), spawn(dir.path()));
        kill(&bundle);
        assert_eq!(inside.wait().unwrap().signal(), Some(9));
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
    }
}
