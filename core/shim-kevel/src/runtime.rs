//! The OCI runtime as a program: `create`, `start`, `exec`, ... by the command line that runc made common.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kevel_shim::{Hold, Reaper};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;

use crate::{
    device,
    error::{Error, Result},
    io::Ends,
    options::Options,
};

/// How much of what a runtime says is read, in bytes, from the end.
const SAID: u64 = 64 << 10;

/// A runtime, for one container.
#[derive(Clone)]
pub(crate) struct Runtime {
    reaper: Reaper,
    binary: String,
    root: PathBuf,
    bundle: PathBuf,
    systemd_cgroup: bool,
}

/// A call of it.
pub(crate) struct Call {
    verb: &'static str,
    arguments: Vec<String>,
    /// The standard streams of a container, or none.
    ends: Option<Ends>,
    /// The name of its log in the bundle.
    log: String,
    input: Option<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(verb: &'static str) -> Self {
        Self { verb, arguments: vec![verb.to_owned()], ends: None, log: "log.json".to_owned(), input: None }
    }

    pub(crate) fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn path(self, flag: &str, path: &Path) -> Self {
        self.arg(flag).arg(path.to_string_lossy())
    }

    pub(crate) fn when(self, is: bool, argument: &str) -> Self {
        if is { self.arg(argument) } else { self }
    }

    pub(crate) fn ends(mut self, ends: Option<Ends>) -> Self {
        self.ends = ends;
        self
    }

    pub(crate) fn log(mut self, name: String) -> Self {
        self.log = name;
        self
    }

    pub(crate) fn input(mut self, input: Vec<u8>) -> Self {
        self.input = Some(input);
        self
    }
}

impl Runtime {
    pub(crate) fn new(reaper: Reaper, options: &Options, namespace: &str, bundle: &Path) -> Self {
        Self {
            reaper,
            binary: options.binary().to_owned(),
            root: options.state(namespace),
            bundle: bundle.to_owned(),
            systemd_cgroup: options.systemd_cgroup,
        }
    }

    /// Keeps processes that the runtime leaves to us until they are adopted.
    pub(crate) fn hold(&self) -> Hold {
        self.reaper.hold()
    }

    pub(crate) fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, call: Call) -> Result<()> {
        let failed = |source| Error::system(format!("running {} {}", self.binary, call.verb), source);
        let log = self.bundle.join(&call.log);
        let begun = log.metadata().map_or(0, |log| log.len());
        // A file in memory: what the runtime leaves behind may hold a pipe open for long.
        let said = output().map_err(failed)?;
        let mut command = command(&self.binary, &self.root, &log, self.systemd_cgroup);
        command.args(&call.arguments).current_dir(&self.bundle);
        match call.ends {
            Some(ends) => drop(command.stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr)),
            None => {
                let [out, err] = [said.try_clone().map_err(failed)?, said.try_clone().map_err(failed)?];
                let input = call.input.map_or(Ok(Stdio::null()), |input| given(&input).map(Stdio::from));
                command.stdin(input.map_err(failed)?).stdout(out).stderr(err);
            }
        }
        device::end_with_us(&mut command);
        let (child, _) = self.reaper.spawn(&mut command).map_err(failed)?;
        drop(command); // our copies of the container's ends
        let exit = child.exit().await;
        if exit.status == 0 {
            return Ok(());
        }
        let said = last_error(&log, begun).or_else(|| tail(said)).unwrap_or_else(|| format!("status {}", exit.status));
        Err(Error::Runtime { verb: call.verb, said })
    }
}

/// The runtime with what every call has.
pub(crate) fn command(binary: &str, root: &Path, log: &Path, systemd_cgroup: bool) -> Command {
    let mut command = Command::new(binary);
    command.arg("--root").arg(root).arg("--log").arg(log).args(["--log-format", "json"]);
    if systemd_cgroup {
        command.arg("--systemd-cgroup");
    }
    command
}

fn output() -> std::io::Result<File> {
    Ok(File::from(memfd_create("runtime", MemfdFlags::CLOEXEC)?))
}

/// Standard input with a text.
fn given(input: &[u8]) -> std::io::Result<File> {
    use std::io::Write as _;
    let mut file = output()?;
    file.write_all(input)?;
    file.rewind()?;
    Ok(file)
}

/// The last error in a log since it had that length.
pub(crate) fn last_error(log: &Path, begun: u64) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        #[serde(default)]
        msg: String,
    }
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(begun.max(length.saturating_sub(SAID)))).ok()?;
    let text = read(file)?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut errors = lines.filter(|line| matches!(line.level.as_str(), "error" | "fatal"));
    errors.next().map(|line| line.msg.trim().to_owned()).filter(|message| !message.is_empty())
}

fn tail(mut said: File) -> Option<String> {
    let length = said.metadata().ok()?.len();
    said.seek(SeekFrom::Start(length.saturating_sub(SAID))).ok()?;
    read(said).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn read(file: File) -> Option<String> {
    let mut bytes = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "limited by take")]
    file.take(SAID).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_this_call_counts() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        assert_eq!(last_error(&log, 0), None);
        let old = "{\"level\":\"error\",\"msg\":\"old\",\"time\":\"t\"}\n";
        let new = "{\"level\":\"warning\",\"msg\":\"x\"}\n{\"level\":\"error\",\"msg\":\"new \\\"one\\\"\"}\nnoise\n";
        std::fs::write(&log, format!("{old}{new}")).unwrap();
        assert_eq!(last_error(&log, 0).unwrap(), "new \"one\"");
        assert_eq!(last_error(&log, old.len() as u64).unwrap(), "new \"one\"");
        std::fs::write(&log, old).unwrap();
        assert_eq!(last_error(&log, 0).unwrap(), "old");
        assert_eq!(last_error(&log, old.len() as u64), None);
    }
}
