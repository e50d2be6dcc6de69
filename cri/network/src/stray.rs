//! Plugins that outlived the daemon that ran them.
//!
//! A daemon that is killed leaves the plugin that it was running: an ADD of which nobody waits for the result goes on and
//! may finish after the DEL that was to undo it, so that its address is never given back. Before a daemon undoes what the
//! one before left half-made, it therefore ends the plugins that still run for those containers. They are known by
//! their environment, which children (IPAM plugins) inherit.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;

/// No environment of a plugin is longer, in bytes.
const MAX_ENVIRONMENT: u64 = 256 << 10;
/// A plugin may start a child between the look at the processes and its end; so many looks are taken at most.
const LOOKS: usize = 8;
/// How long a killed process may take to be gone.
const GONE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Kills every plugin that runs for one of the containers, waits until they are gone and answers how many there were.
/// Blocks, for a look at every process of the node. Only for containers of which no plugin is meant to run now.
pub fn end(containers: &BTreeSet<String>) -> usize {
    let mut ended = 0;
    for _ in 0..LOOKS {
        let killed: Vec<OwnedFd> = processes().filter_map(|pid| kill(pid, containers)).collect();
        if killed.is_empty() {
            break;
        }
        ended += killed.len();
        for process in killed {
            // A process that cannot die is as harmless as one that is gone: it runs no more code of its own.
            let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&GONE));
        }
    }
    ended
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw)
}

fn kill(pid: Pid, containers: &BTreeSet<String>) -> Option<OwnedFd> {
    let environment = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("environ");
    let container = container_of(&environment)?;
    if !containers.contains(&container) {
        return None;
    }
    // The descriptor keeps its process when the number is used again; the second look makes sure that it is the one.
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    if container_of(&environment).as_ref() != Some(&container) {
        return None;
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) => {
            tracing::warn!(pid = pid.as_raw_nonzero(), container, "ended a plugin that a daemon before had started");
            Some(process)
        }
        Err(Errno::SRCH) => None,
        Err(error) => {
            tracing::warn!(pid = pid.as_raw_nonzero(), container, %error, "a plugin of a daemon before goes on");
            None
        }
    }
}

/// The container that a plugin runs for; none for every other process. A process that has ended has no environment.
fn container_of(environment: &Path) -> Option<String> {
    let bytes = crate::cache::read_limited(File::open(environment).ok()?, MAX_ENVIRONMENT).ok()??;
    let variables = || bytes.split(|byte| *byte == 0);
    variables().find(|variable| variable.starts_with(b"CNI_COMMAND="))?;
    let id = variables().find_map(|variable| variable.strip_prefix(b"CNI_CONTAINERID="))?;
    String::from_utf8(id.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    fn plugin(container: &str) -> Child {
        // The shell has a child of its own, as a plugin has its IPAM plugin.
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60; true"]).env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", container);
        command.spawn().unwrap()
    }

    #[test]
    fn only_plugins_of_the_containers_end() {
        let (ours, other) = (format!("stray-{}", std::process::id()), format!("other-{}", std::process::id()));
        let (mut first, mut second) = (plugin(&ours), plugin(&other));
        let mut bystander = Command::new("sleep").arg("60").env("CNI_CONTAINERID", &ours).spawn().unwrap();
        assert!(end(&BTreeSet::from([ours.clone()])) >= 1);
        assert_eq!(first.wait().unwrap().signal(), Some(9));
        assert!(second.try_wait().unwrap().is_none() && bystander.try_wait().unwrap().is_none());
        assert_eq!(end(&BTreeSet::from([ours])), 0);
        assert!(end(&BTreeSet::from([other])) >= 1);
        second.wait().unwrap();
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }
}
