//! Plugins as binaries: find, start, feed, read, bound and kill.

use super::{Call, Invoker, PluginError};
use async_trait::async_trait;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument as _, Span};

/// A longer answer is refused.
const MAX_STDOUT: usize = 1 << 20;
/// Of a longer standard error the end is kept.
const MAX_STDERR: usize = 16 << 10;
/// How much of a plugin's output an error shows.
const EXCERPT: usize = 512;
/// A plugin that ended may have left a child with its pipes; it gets this long to say the rest.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a killed plugin may take to disappear before it is left to the reaper.
const REAP: Duration = Duration::from_secs(5);
/// An installer that still writes the binary makes it busy; it is tried again after this time.
const BUSY: Duration = Duration::from_millis(100);

/// Runs plugins from directories of binaries, as the CNI specification says.
#[derive(Clone, Debug)]
pub struct ExecInvoker {
    dirs: Vec<PathBuf>,
}

impl ExecInvoker {
    /// Plugins are searched in `dirs`, in order; the same list is what plugins get in `CNI_PATH`.
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    async fn path_of(&self, plugin: &str) -> Result<PathBuf, PluginError> {
        for dir in &self.dirs {
            let path = dir.join(plugin);
            let runs = |meta: std::fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
            if tokio::fs::metadata(&path).await.is_ok_and(runs) {
                return Ok(path);
            }
        }
        Err(PluginError::NotFound { plugin: plugin.to_owned(), searched: self.dirs.clone() })
    }

    fn command(&self, path: &Path, call: &Call) -> Command {
        let mut command = Command::new(path);
        command
            .env("CNI_COMMAND", call.verb.as_str())
            .env("CNI_CONTAINERID", &call.container_id)
            .env("CNI_NETNS", call.netns.as_deref().unwrap_or(Path::new("")))
            .env("CNI_IFNAME", &call.ifname)
            .env("CNI_ARGS", join_args(&call.args))
            .env("CNI_PATH", join_paths(&self.dirs))
            // What systemd told the daemon is not for its children.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/")
            // Its own group, so that a delegated plugin (IPAM) dies with it.
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

#[async_trait]
impl Invoker for ExecInvoker {
    async fn find(&self, plugin: &str) -> Result<(), PluginError> {
        self.path_of(plugin).await.map(|_| ())
    }

    async fn invoke(&self, call: &Call) -> Result<Vec<u8>, PluginError> {
        let span = span(call);
        let result = self.run(call).instrument(span.clone()).await;
        if let Err(error) = &result {
            span.record("otel.status_description", tracing::field::display(error));
        }
        result
    }
}

impl ExecInvoker {
    async fn run(&self, call: &Call) -> Result<Vec<u8>, PluginError> {
        let path = self.path_of(&call.plugin).await?;
        let deadline = Instant::now() + call.timeout;
        let child = start(self.command(&path, call), &path, deadline).await?;
        let mut run = Run::new(child);
        let outcome = run.finish(&call.config, deadline).await;
        let ended = match outcome {
            Ok(ended) => ended,
            Err(stop) => {
                run.kill().await;
                return Err(match stop {
                    Stop::Late => PluginError::Timeout { after: call.timeout },
                    Stop::TooLarge => PluginError::TooLarge { limit: MAX_STDOUT },
                    Stop::Io(source) => PluginError::Process { action: "talking to", path, source },
                });
            }
        };
        if !ended.stderr.is_empty() {
            tracing::debug!(plugin = %call.plugin, verb = %call.verb, stderr = %tail(&ended.stderr), "plugin log");
        }
        ended.answer()
    }
}

/// The plugin in the trace of what it is called for, if that has one.
fn span(call: &Call) -> Span {
    if !tracing::span_enabled!(tracing::Level::TRACE) || Span::current().is_none() {
        return Span::none();
    }
    let name = format_args!("cni {} {}", call.verb, call.plugin);
    tracing::trace_span!("plugin", otel.name = %name, otel.status_description = tracing::field::Empty)
}

/// Starts the plugin; a binary that is still being written is tried again until the deadline.
async fn start(mut command: Command, path: &Path, deadline: Instant) -> Result<Child, PluginError> {
    loop {
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() + BUSY < deadline => {
                sleep(BUSY).await;
            }
            Err(source) => return Err(PluginError::Process { action: "starting", path: path.to_owned(), source }),
        }
    }
}

// === A running plugin ===

/// A started plugin; dropping it kills its process group.
struct Run {
    child: Child,
    group: Option<Pid>,
}

/// Why a plugin was not let go on.
enum Stop {
    Late,
    TooLarge,
    Io(io::Error),
}

/// What a plugin left when it ended.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Run {
    fn new(child: Child) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { child, group }
    }

    /// Feeds the configuration, collects the output and waits for the end, all at once so that no pipe can fill up
    /// and block.
    async fn finish(&mut self, config: &[u8], deadline: Instant) -> Result<Ended, Stop> {
        let (mut stdin, stdout, stderr) = (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let feed = async move {
            if let Some(stdin) = &mut stdin {
                // A plugin may end without reading its configuration.
                stdin.write_all(config).await.ok();
            }
            drop(stdin);
        };
        tokio::pin!(feed);
        let (mut out, mut err) = (Pipe::new(stdout), Pipe::new(stderr));
        let (mut fed, mut status, mut deadline) = (false, None, deadline);
        loop {
            if let (Some(status), true, true) = (status, out.done(), err.done()) {
                return Ok(Ended { status, stdout: out.data, stderr: err.data });
            }
            tokio::select! {
                () = &mut feed, if !fed => fed = true,
                read = out.read(), if !out.done() => {
                    read.map_err(Stop::Io)?;
                    if out.data.len() > MAX_STDOUT {
                        return Err(Stop::TooLarge);
                    }
                }
                read = err.read(), if !err.done() => {
                    read.map_err(Stop::Io)?;
                    err.keep_end(MAX_STDERR);
                }
                ended = self.child.wait(), if status.is_none() => {
                    status = Some(ended.map_err(Stop::Io)?);
                    // The leader is reaped: its number may belong to someone else from here on.
                    self.group = None;
                    deadline = deadline.min(Instant::now() + DRAIN);
                }
                () = sleep_until(deadline) => match status {
                    Some(status) => return Ok(Ended { status, stdout: out.data, stderr: err.data }),
                    None => return Err(Stop::Late),
                }
            }
        }
    }

    async fn kill(mut self) {
        self.kill_group();
        if timeout(REAP, self.child.wait()).await.is_ok() {
            self.group = None;
        }
    }

    fn kill_group(&self) {
        if let Some(group) = self.group {
            // Not there any more is what we want.
            killpg(group, Signal::SIGKILL).ok();
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// One output pipe and what came out of it.
struct Pipe<R> {
    reader: Option<R>,
    data: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(reader: Option<R>) -> Self {
        Self { reader, data: Vec::new() }
    }

    fn done(&self) -> bool {
        self.reader.is_none()
    }

    /// Cancel safe: what was read is in `data`.
    async fn read(&mut self) -> io::Result<()> {
        if let Some(reader) = &mut self.reader
            && reader.read_buf(&mut self.data).await? == 0
        {
            self.reader = None;
        }
        Ok(())
    }

    fn keep_end(&mut self, limit: usize) {
        if self.data.len() > limit {
            self.data.drain(..self.data.len() - limit);
        }
    }
}

impl Ended {
    /// Success is exit status zero; a failure should come with an error object on standard output.
    fn answer(self) -> Result<Vec<u8>, PluginError> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(reported(&self.stdout).unwrap_or_else(|| PluginError::Failed {
            outcome: self.status.to_string(),
            stdout: head(&self.stdout),
            stderr: tail(&self.stderr),
        }))
    }
}

/// The error object that a plugin printed, if it is one.
fn reported(stdout: &[u8]) -> Option<PluginError> {
    let value: Value = serde_json::from_slice(stdout).ok()?;
    let object = value.as_object()?;
    if !object.contains_key("code") && !object.contains_key("msg") {
        return None;
    }
    let code = match object.get("code") {
        Some(code) => u32::try_from(code.as_u64()?).ok()?,
        None => 0,
    };
    let text = |key: &str| shown(object.get(key).and_then(Value::as_str).unwrap_or_default());
    Some(PluginError::Reported { code, msg: text("msg"), details: text("details") })
}

/// At most 4 KiB of a plugin's words.
fn shown(text: &str) -> String {
    text.chars().take(4096).collect()
}

fn head(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]).trim_end().to_owned()
}

fn tail(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(EXCERPT)..]).trim().to_owned()
}

fn join_args(args: &[(String, String)]) -> String {
    let pairs: Vec<String> = args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(";")
}

fn join_paths(dirs: &[PathBuf]) -> OsString {
    let mut joined = OsString::new();
    for (i, dir) in dirs.iter().enumerate() {
        if i > 0 {
            joined.push(":");
        }
        joined.push(dir);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_objects() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(reported(text.as_bytes()).map(|e| e.to_string()).as_deref(), want, "{text}");
        };
        check(r#"{"cniVersion":"1.1.0","code":7,"msg":"bad","details":"subnet"}"#, Some("error 7: bad: subnet"));
        check(r#"{"code":11,"msg":"later"}"#, Some("error 11: later"));
        check(r#"{"msg":"only words"}"#, Some("error 0: only words"));
        check(r#"{"code":100}"#, Some("error 100: "));
        check(r#"{"code":-1,"msg":"x"}"#, None);
        check(r#"{"code":"7","msg":"x"}"#, None);
        check("{}", None);
        check("[]", None);
        check("panic: oh", None);
        check("", None);
    }

    #[test]
    fn arguments_are_joined_as_the_specification_says() {
        let args = vec![("FOO".to_owned(), "BAR".to_owned()), ("ABC".to_owned(), "123".to_owned())];
        assert_eq!(join_args(&args), "FOO=BAR;ABC=123");
        assert_eq!(join_paths(&["/a".into(), "/b".into()]), "/a:/b");
    }
}
