//! Shim processes that nobody can talk to: found by the bundle that they were started in, and killed.
//!
//! A shim keeps the working directory of its `start`, which is the bundle of its first container; nothing else does. So
//! a process in there is a shim even if it never told its process id.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use kevel_cgroup::{Families, parent};
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

/// Kills the shim's children that make a checkpoint of one container and everything below them, and every CRIU that has lost
/// its runtime and with it its purpose: those are the shim's children, too. Blocks. Answers how many there were.
pub(super) fn kill_checkpoints(shim: u32, id: &str) -> usize {
    let is_one = |process: &Path| is_checkpoint(process, shim, id);
    let families = families();
    let roots = checkpoints(&families, shim, id);
    let (first, found) = (roots.len(), families.whole(roots));
    // All are held before the first is killed: whoever loses its child may go on, and whoever loses its parent has another.
    let below = |process: &Path| parent(process).is_some_and(|parent| found.contains(&parent));
    let take = |(at, pid): (usize, &u32)| {
        let held = if at < first { hold(*pid, is_one) } else { hold(*pid, below) };
        held.map(|held| (*pid, held))
    };
    let held: Vec<_> = found.iter().enumerate().filter_map(take).collect();
    held.iter().filter(|(pid, process)| end(*pid, process)).count()
}

fn is_checkpoint(process: &Path, shim: u32, id: &str) -> bool {
    let makes = is_runtime(process, shim, id) && has_word(process, b"checkpoint");
    makes || parent(process) == Some(shim) && is_criu(process)
}

/// A look at every process. Blocks.
pub(super) fn families() -> Families {
    Families::of(Path::new("/proc")).unwrap_or_default()
}

/// The shim's children that were making a checkpoint of one container, and every CRIU that was left of one. Blocks, for a look
/// at its children.
pub(super) fn checkpoints(families: &Families, shim: u32, id: &str) -> Vec<u32> {
    families.children(shim).iter().copied().filter(|pid| is_checkpoint(&of(*pid), shim, id)).collect()
}

/// The children of a shim that work on one container. Blocks.
pub(super) fn runtimes(shim: u32, id: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let children = processes.filter(|process| is_runtime(&process.path(), shim, id));
    children.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

fn is_runtime(process: &Path, shim: u32, id: &str) -> bool {
    parent(process) == Some(shim) && has_word(process, id.as_bytes())
}

/// CRIU as runtimes run it, `criu swrk`, and not a process of a container that is called so: those have a process table of their
/// own.
fn is_criu(process: &Path) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let named = |word: &[u8]| word.rsplit(|byte| *byte == b'/').next() == Some(b"criu");
    let table = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    words.windows(2).any(|pair| named(pair[0]) && pair[1] == b"swrk")
        && table(process).is_some_and(|own| Some(own) == table(Path::new("/proc/self")))
}

fn has_word(process: &Path, wanted: &[u8]) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == wanted)
}

fn of(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Kills a process if it is still one of whom `is_it` holds, given its directory below `/proc`. Answers whether it was.
pub(super) fn signal(pid: u32, is_it: impl Fn(&Path) -> bool) -> bool {
    hold(pid, is_it).is_some_and(|process| end(pid, &process))
}

/// A descriptor that keeps its process when the number is used again; the look after makes sure that it is the one.
fn hold(pid: u32, is_it: impl Fn(&Path) -> bool) -> Option<OwnedFd> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    let process = pidfd_open(number, PidfdFlags::empty()).ok()?;
    is_it(&of(pid)).then_some(process)
}

/// Kills a process. Answers whether there was one.
fn end(pid: u32, process: &OwnedFd) -> bool {
    match pidfd_send_signal(process, Signal::KILL) {
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

    /// A child is another program only after a moment.
    fn eventually_has(pid: u32, word: &[u8]) {
        while !has_word(&of(pid), word) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_checkpoint_ends_with_what_it_runs() {
        // Not the other test's: they have this process, their shim, in common.
        let id = format!("saved-{}", std::process::id());
        let child = |verb: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 60 & echo $!; wait", verb, &id]).stdout(std::process::Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            let out = child.stdout.take().unwrap();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
            (child, line.trim().parse::<u32>().unwrap())
        };
        let ((mut checkpoint, below), (mut other, stays)) = (child("checkpoint"), child("exec"));
        let orphan =
            |verb: &str| Command::new("sh").args(["-c", "sleep 60; true", "/usr/sbin/criu", verb]).spawn().unwrap();
        let (mut criu, mut check) = (orphan("swrk"), orphan("check"));
        eventually_has(criu.id(), b"swrk");
        assert!(kill_checkpoints(std::process::id(), &id) >= 3);
        assert_eq!(criu.wait().unwrap().signal(), Some(9));
        assert!(check.try_wait().unwrap().is_none());
        check.kill().unwrap();
        check.wait().unwrap();
        assert_eq!(checkpoint.wait().unwrap().signal(), Some(9));
        // The signal is sent; the end comes when the kernel gets to it.
        while has_word(&of(below), b"sleep") {
            std::thread::yield_now();
        }
        assert!(other.try_wait().unwrap().is_none() && has_word(&of(stays), b"sleep"));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(signal(stays, |process| has_word(process, b"sleep")));
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
