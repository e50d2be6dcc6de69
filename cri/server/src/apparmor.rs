//! AppArmor profiles of the node: the default one for containers, which is loaded when it is missing, and whether others
//! are there. What a container's spec says of them is `kevel-cri-spec`'s.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use kevel_cri_spec::Profile;
use kevel_model::{Error, Result};

/// The default profile, under the name that containerd's has: tools look for it.
const DEFAULT: &str = "cri-containerd.apparmor.d";
/// Where the kernel lists what is loaded.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Compiling a profile takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every container may do: anything, but to the kernel's settings, to mounts, and to processes of other profiles.
/// It uses nothing of the distribution's profiles, so that it compiles on every node.
const PROFILE: &str = r"
profile cri-containerd.apparmor.d flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  signal (receive) peer=unconfined,
  signal (receive) peer={keveld,runc,crun,containerd-shim-runc-v2},
  signal (receive) peer=/usr/{,local/}{,s}bin/{keveld,runc,crun,containerd-shim-runc-v2},
  signal (send, receive) peer=cri-containerd.apparmor.d,
  ptrace (trace, read, tracedby, readby) peer=cri-containerd.apparmor.d,

  deny /proc/* w,
  deny /proc/{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}/** w,
  deny /proc/sys/[^kn]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/mem rwklx,
  deny /proc/kmem rwklx,
  deny /proc/kcore rwklx,

  deny mount,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// The default profile's name once it is loaded; `None`, with a word in the log, where it cannot be. Blocks.
pub(crate) fn default_profile() -> Option<String> {
    if is_loaded(DEFAULT) {
        return Some(DEFAULT.to_owned());
    }
    match load(PROFILE, &[]) {
        Ok(()) => Some(DEFAULT.to_owned()),
        Err(error) => {
            tracing::warn!(profile = DEFAULT, %error, "AppArmor profile is not loaded; containers run without");
            None
        }
    }
}

/// Refuses a profile by name that is not loaded: the runtime would say so only when the container starts. Blocks.
pub(crate) fn check(profile: Option<&Profile<String>>) -> Result<()> {
    match profile {
        Some(Profile::Localhost(name)) if !is_loaded(name) => {
            let field = "config.linux.security_context.apparmor";
            Err(Error::failed_precondition(format!("{field}: profile {name:?} is not loaded")))
        }
        _ => Ok(()),
    }
}

fn is_loaded(name: &str) -> bool {
    listed(&fs::read_to_string(LOADED).unwrap_or_default(), name)
}

/// Lines are a name, a space and a mode in parentheses; names may have spaces in them.
fn listed(table: &str, name: &str) -> bool {
    table.lines().any(|line| line.rsplit_once(" (").is_some_and(|(listed, _)| listed == name))
}

fn load(profile: &str, more: &[&str]) -> io::Result<()> {
    let parser =
        ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"].into_iter().find(|path| Path::new(path).exists());
    let parser = parser.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no apparmor_parser"))?;
    let mut command = Command::new(parser);
    command
        .args(["--replace", "--skip-cache"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(profile.as_bytes())?; // shorter than a pipe takes, so it cannot block
    }
    finished(child)
}

/// Waits for a program, but not for ever.
fn finished(child: Child) -> io::Result<()> {
    let process = rustix::process::Pid::from_child(&child);
    let (done, wait) = mpsc::channel();
    std::thread::Builder::new().name("apparmor".to_owned()).spawn(move || done.send(child.wait_with_output()))?;
    match wait.recv_timeout(PATIENCE) {
        Ok(output) => {
            let output = output?;
            let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect::<String>();
            if output.status.success() { Ok(()) } else { Err(io::Error::other(format!("{}: {said}", output.status))) }
        }
        Err(_) => {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL); // the thread reaps it
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("not done within {PATIENCE:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_their_whole_name() {
        let table = "a b (enforce)\ncri-containerd.apparmor.d (enforce)\nman (complain)\n";
        for (name, want) in [("a b", true), ("a", false), (DEFAULT, true), ("man", true), ("", false)] {
            assert_eq!(listed(table, name), want, "{name}");
        }
        assert!(PROFILE.contains(&format!("profile {DEFAULT} ")));
        assert!(check(None).is_ok() && check(Some(&Profile::RuntimeDefault)).is_ok());
    }

    #[test]
    fn the_profile_compiles() {
        match load(PROFILE, &["--skip-kernel-load"]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => eprintln!("skipped: {error}"),
            done => done.unwrap(),
        }
        assert!(load("profile x { no such rule, }", &["--skip-kernel-load"]).is_err());
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let run = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).stdin(Stdio::null()).stderr(Stdio::piped());
            finished(command.spawn().unwrap())
        };
        run("exit 0").unwrap();
        let error = run("echo no such rule >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("no such rule") && error.contains('3'), "{error}");
    }
}
