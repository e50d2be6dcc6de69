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
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|_| works_in(&process.path(), bundle))
            && signal(pid, |process| works_in(process, bundle))
        {
            tracing::warn!(pid, ?bundle, "killed a shim that could not be talked to");
        }
    }
}

/// Kills the children of a shim that work on one container: processes of the runtime, which have its id as a word of
/// their command line. Blocks, for a look at every process. Answers how many there were.
pub(super) fn kill_runtimes(shim: u32, id: &str) -> usize {
    let works = |process: &Path| is_runtime(process, shim, id);
    runtimes(shim, id).into_iter().filter(|pid| signal(*pid, works)).count()
}

/// The children of a shim that work on one container. Blocks.
pub(super) fn runtimes(shim: u32, id: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let children = processes.filter(|process| is_runtime(&process.path(), shim, id));
    children.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

fn is_runtime(process: &Path, shim: u32, id: &str) -> bool {
    // The parent is the second field after the name, which is in parentheses and may hold anything.
    let parent = || {
        let stat = fs::read_to_string(process.join("stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let names = || {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == id.as_bytes())
    };
    parent() == Some(shim) && names()
}

/// Kills a process if it is still one of whom `is_it` holds, given its directory below `/proc`. Answers whether it was.
pub(super) fn signal(pid: u32, is_it: impl Fn(&Path) -> bool) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    // The descriptor keeps its process when the number is used again; the look after makes sure that it is the one.
    let Ok(fd) = pidfd_open(number, PidfdFlags::empty()) else { return false };
    if !is_it(&Path::new("/proc").join(pid.to_string())) {
        return false;
    }
    match pidfd_send_signal(fd, Signal::KILL) {
        Ok(()) => true,
        Err(Errno::SRCH) => false,
        Err(error) => {
            tracing::warn!(pid, %error, "a process can't be killed");
            false
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
    fn only_the_shims_children_that_name_the_container_are_killed() {
        let child = |id: &str| Command::new("sh").args(["-c", "sleep 60; true", id, "verb"]).spawn().unwrap();
        let (id, own) = (format!("c-{}", std::process::id()), std::process::id());
        let (mut ours, mut other) = (child(&id), child("another"));
        assert_eq!(runtimes(own, &id), [ours.id()]);
        assert_eq!(runtimes(own + 1, &id), Vec::<u32>::new());
        assert_eq!(kill_runtimes(own, &id), 1);
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

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
