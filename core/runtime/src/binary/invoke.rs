//! Runs a shim binary: `start`, `delete` and `-info`. Every run has a deadline, and what it says is read to a bound.

use std::{
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kevel_contract::trace;
use kevel_model::{Any, Namespace};
use kevel_proto::{
    containerd::types::RuntimeInfo,
    shim::bootstrap::{BootstrapParams, Extension, LogLevel},
    shim::task::DeleteResponse,
};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use super::{
    Daemon,
    reply::{Bootstrap, MAX_REPLY},
};
use crate::{Error, Result, error::ReplyError, wire};

/// How much of standard error is kept, in bytes.
const MAX_NOISE: usize = 16 << 10;
/// How long output may still come after the binary has ended; a child that it left may hold the pipes open.
const STRAGGLE: Duration = Duration::from_millis(500);
/// The version that every daemon since containerd 1.4 names here, also to shims of version 3.
const MAX_SHIM_VERSION: &str = "2";

/// For whom a binary is run, and where.
pub(crate) struct Invocation<'a> {
    pub(crate) daemon: &'a Daemon,
    pub(crate) binary: &'a Path,
    pub(crate) namespace: &'a Namespace,
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) limit: Duration,
}

/// Runs `start`; answers how to reach the shim.
///
/// Shims of containerd before 2.3 expect the options alone on standard input. Most ignore what they don't know there;
/// those that refuse it do so before anything else, naming the first text of the message as an unknown type, and are run
/// once more in their own way.
pub(crate) async fn start(run: &Invocation<'_>, options: Option<&Any>) -> Result<Bootstrap> {
    let mut output = start_with(run, &params(run, options).encode_to_vec()).await;
    if let Err(Error::Failed { output: said, .. }) = &output
        && said.contains(&format!("type with url {}", run.id))
    {
        let options = options.map(|any| wire::any(any.clone()).encode_to_vec()).unwrap_or_default();
        output = start_with(run, &options).await;
    }
    Bootstrap::parse(&output?).map_err(|source| Error::Reply { binary: run.binary.into(), action: "start", source })
}

async fn start_with(run: &Invocation<'_>, input: &[u8]) -> Result<Vec<u8>> {
    let mut command = run.command();
    command.arg("start");
    execute(command, run.binary, "start", input, run.limit).await?.succeeded(run.binary, "start")
}

/// Runs `delete`, which ends and removes whatever is left of a container; answers how it ended.
pub(crate) async fn delete(run: &Invocation<'_>) -> Result<DeleteResponse> {
    let mut command = run.command();
    command.arg("-bundle").arg(run.bundle).arg("delete");
    let output = execute(command, run.binary, "delete", b"", run.limit).await?;
    let output = output.succeeded(run.binary, "delete")?;
    DeleteResponse::decode(output.as_slice()).map_err(|_| garbage(run.binary, "delete", &output))
}

/// Runs `-info`; answers what the shim says of itself and of the runtime behind it.
pub(crate) async fn info(
    daemon: &Daemon,
    binary: &Path,
    options: Option<&Any>,
    limit: Duration,
) -> Result<RuntimeInfo> {
    let mut command = Command::new(binary);
    command.arg("-info").envs(daemon.env.iter().map(|(name, value)| (name, value)));
    let stdin = options.map(|any| wire::any(any.clone()).encode_to_vec()).unwrap_or_default();
    let output = execute(command, binary, "-info", &stdin, limit).await?.succeeded(binary, "-info")?;
    RuntimeInfo::decode(output.as_slice()).map_err(|_| garbage(binary, "-info", &output))
}

fn garbage(binary: &Path, action: &'static str, output: &[u8]) -> Error {
    let excerpt = String::from_utf8_lossy(output).chars().take(256).collect();
    Error::Reply { binary: binary.into(), action, source: ReplyError::Garbage(excerpt) }
}

impl Invocation<'_> {
    /// The command without its action. The same facts go by flag and by environment: shims of different ages read
    /// different ones, and new ones refuse to start when the two differ.
    fn command(&self) -> Command {
        let daemon = self.daemon;
        let mut command = Command::new(self.binary);
        command
            .args(["-namespace", self.namespace.as_str()])
            .args(["-address", &daemon.grpc_address])
            .arg("-publish-binary")
            .arg(&daemon.binary)
            .args(["-id", self.id]);
        if daemon.debug {
            command.arg("-debug");
        }
        command
            .current_dir(self.bundle)
            .env("GOMAXPROCS", "2")
            .env("MAX_SHIM_VERSION", MAX_SHIM_VERSION)
            .env("TTRPC_ADDRESS", &daemon.ttrpc_address)
            .env("GRPC_ADDRESS", &daemon.grpc_address)
            .env("NAMESPACE", self.namespace.as_str())
            .envs(daemon.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The facts once more, as a message, for shims of containerd 2.3 and later.
fn params(run: &Invocation<'_>, options: Option<&Any>) -> BootstrapParams {
    let level = if run.daemon.debug { LogLevel::Debug } else { LogLevel::Info };
    let socket_dir = run.daemon.socket_dir.as_ref();
    BootstrapParams {
        instance_id: run.id.to_owned(),
        namespace: run.namespace.as_str().to_owned(),
        log_level: level.into(),
        containerd_version: env!("CARGO_PKG_VERSION").to_owned(),
        containerd_ttrpc_address: run.daemon.ttrpc_address.clone(),
        containerd_grpc_address: run.daemon.grpc_address.clone(),
        containerd_binary: run.daemon.binary.display().to_string(),
        extensions: options.map(|any| Extension { value: Some(wire::any(any.clone())) }).into_iter().collect(),
        socket_dir: socket_dir.map(|dir| dir.display().to_string()),
    }
}

/// How a run ended.
struct Output {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// Standard output of a run that succeeded; what it said on standard error becomes the error or a warning.
    fn succeeded(self, binary: &Path, action: &'static str) -> Result<Vec<u8>> {
        let said = String::from_utf8_lossy(self.stderr.trim_ascii()).into_owned();
        if self.status.success() {
            if !said.is_empty() {
                tracing::warn!(?binary, action, said, "a shim binary complained");
            }
            return Ok(self.stdout);
        }
        let mut output = said;
        if output.is_empty() {
            output = String::from_utf8_lossy(self.stdout.trim_ascii()).chars().take(MAX_NOISE).collect();
        }
        Err(Error::Failed { binary: binary.into(), action, status: self.status, output })
    }
}

/// Runs a command in a process group of its own, within `limit`; after that it is killed.
async fn execute(
    mut command: Command,
    binary: &Path,
    action: &'static str,
    input: &[u8],
    limit: Duration,
) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let failed = |source| Error::Spawn { binary: binary.into(), action, source };
    let name = binary.file_name().unwrap_or_default().display();
    let run = trace::within(format_args!("{name} {action}"), async {
        let mut child = spawn(&mut command).await?;
        let stdout = Collected::of(child.stdout.take(), MAX_REPLY + 1);
        let stderr = Collected::of(child.stderr.take(), MAX_NOISE);
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input).await {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {} // old shims don't read it
                result => result?,
            }
        }
        let status = child.wait().await?;
        let (stdout, stderr) = tokio::join!(stdout.finish(), stderr.finish());
        io::Result::Ok(Output { status, stdout, stderr })
    });
    match tokio::time::timeout(limit, run).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(Error::Slow { binary: binary.into(), action, limit }),
    }
}

/// Spawns; tries again when a fork elsewhere in this process holds a just written binary open for an instant.
async fn spawn(command: &mut Command) -> io::Result<tokio::process::Child> {
    for _ in 0..20 {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            result => return result,
        }
    }
    command.spawn()
}

/// Output as it comes; everything above the limit is read and dropped, so that nobody blocks on a full pipe.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Collected {
    fn of<R: AsyncRead + Send + Unpin + 'static>(reader: Option<R>, limit: usize) -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let kept = bytes.clone();
        let reading = tokio::spawn(async move {
            let Some(mut reader) = reader else { return };
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = limit.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(&chunk[..room]);
            }
        });
        Self { bytes, reading }
    }

    async fn finish(mut self) -> Vec<u8> {
        let _ = tokio::time::timeout(STRAGGLE, &mut self.reading).await; // what came so far is good enough
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
