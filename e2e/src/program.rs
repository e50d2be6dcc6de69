//! Foreign clients as programs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::patience;

/// A program may take so many seconds before it counts as hung.
const LIMIT: u64 = 120;

/// What a program said.
#[derive(Debug)]
pub struct Output {
    /// Exit code; 128 and more for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output of a program that succeeded.
    pub fn ok(self) -> anyhow::Result<String> {
        if self.code != 0 {
            bail!("exit code {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Finds a program on the PATH or where `hack/install-deps` puts them. A test that needs one that is missing fails.
pub fn find(name: &str) -> anyhow::Result<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "tests find foreign programs as a shell does")]
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
    let cache = PathBuf::from(variable("KEVEL_DEPS")).join("bin");
    let home = PathBuf::from(variable("HOME")).join(".cache/kevel/bin");
    let path = variable("PATH");
    let folders = [cache, home].into_iter().chain(std::env::split_paths(&path).collect::<Vec<_>>());
    for folder in folders.chain(["/usr/sbin".into(), "/usr/bin".into(), "/sbin".into()]) {
        let candidate = folder.join(name);
        if folder.is_absolute() && candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("{name} is not here; hack/install-deps installs it")
}

/// Runs a program to its end and collects what it says.
pub fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    run_with(program, arguments, &[], Stdio::null())
}

/// The same with variables added to the environment, and with something to read.
pub(crate) fn run_with(
    program: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: Stdio,
) -> anyhow::Result<Output> {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=5").arg(patience(LIMIT).as_secs().to_string()).arg(program).args(arguments);
    let output = command
        .envs(variables.iter().copied())
        .stdin(input)
        .output()
        .with_context(|| format!("running {} {}", program.display(), arguments.join(" ")))?;
    Ok(Output {
        code: output.status.code().unwrap_or(128),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs containerd 2.4's `ctr` against a socket.
pub fn ctr(socket: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    run_ctr(&find("ctr")?, socket, arguments)
}

/// Runs Debian's `ctr`, which is older, against a socket.
pub fn debian_ctr(socket: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let path = Path::new("/usr/bin/ctr");
    if !path.is_file() {
        bail!("/usr/bin/ctr is not here; install Debian's containerd package");
    }
    run_ctr(path, socket, arguments)
}

fn run_ctr(program: &Path, socket: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let socket = socket.to_str().context("socket path")?;
    run(program, &[&["--address", socket], arguments].concat())
}
