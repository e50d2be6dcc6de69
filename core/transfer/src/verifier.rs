//! The image verifier `io.containerd.image-verifier.v1.bindir`: programs in a directory, asked one after the other.
//!
//! The protocol is containerd's. Each program gets `-name NAME -digest DIGEST -stdin-media-type TYPE` and the descriptor
//! as JSON on standard input; status 0 allows the image, any other refuses it, and standard output says why. One that
//! can't be run or does not end in time is an error: an image that could not be judged is not pulled.

use std::{path::PathBuf, process::Stdio, time::Duration};

use async_trait::async_trait;
use kevel_contract::{
    call::Target,
    verifier::{Backend, ImageVerifier, ImageVerifiers, Judgement},
};
use kevel_model::{Descriptor, Error, Result};
use kevel_plugin::{InitContext, InitError};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

/// How much of a program's output is kept, in bytes.
const MAX_OUTPUT: u64 = 16 << 10;

/// The plugin's table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The directory of the programs, which are run in order of name. None is fine: then every image may be pulled.
    pub bin_dir: PathBuf,
    /// The most programs that are run; all of them when negative.
    pub max_verifiers: i64,
    /// The longest that one may take, as a Go duration.
    #[serde(with = "kevel_model::duration")]
    pub per_verifier_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bin_dir: "/opt/containerd/image-verifier/bin".into(),
            max_verifiers: 10,
            per_verifier_timeout: Duration::from_secs(10),
        }
    }
}

/// Registers the verifier.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = ImageVerifiers;
    const ID: &'static str = "bindir";
    type Config = Config;
    type Deps = ();

    async fn init(_: InitContext, config: Config, (): ()) -> Result<ImageVerifier, InitError> {
        Ok(ImageVerifier::new(Target::local("image verifier bindir"), Bindir(config)))
    }
}

struct Bindir(Config);

#[async_trait]
impl Backend for Bindir {
    async fn verify(&self, name: &str, target: &Descriptor) -> Result<Judgement> {
        let programs = self.programs().await?;
        if programs.is_empty() {
            let reason = format!("no image verifiers in {}", self.0.bin_dir.display());
            return Ok(Judgement { ok: true, reason });
        }
        let limit = usize::try_from(self.0.max_verifiers).unwrap_or(usize::MAX);
        if programs.len() > limit {
            tracing::warn!(dir = %self.0.bin_dir.display(), limit, "more image verifiers than are run");
        }
        let mut reasons = Vec::new();
        for program in programs.into_iter().take(limit) {
            let judgement = self.ask(&program, name, target).await?;
            if !judgement.ok {
                return Ok(judgement);
            }
            reasons.push(judgement.reason);
        }
        Ok(Judgement { ok: true, reason: reasons.join(", ") })
    }
}

impl Bindir {
    /// The names in the directory, sorted.
    async fn programs(&self) -> Result<Vec<String>> {
        let doing = |error| Error::io(format!("listing image verifiers in {}", self.0.bin_dir.display()), error);
        let mut entries = match tokio::fs::read_dir(&self.0.bin_dir).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(doing)?,
        };
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(doing)? {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    async fn ask(&self, program: &str, name: &str, target: &Descriptor) -> Result<Judgement> {
        let limit = self.0.per_verifier_timeout;
        let asked = tokio::time::timeout(limit, self.run(program, name, target)).await;
        asked.unwrap_or_else(|_| {
            Err(Error::deadline_exceeded(format!("image verifier {program} did not answer within {limit:?}")))
        })
    }

    async fn run(&self, program: &str, name: &str, target: &Descriptor) -> Result<Judgement> {
        let doing = |error| Error::io(format!("running image verifier {program}"), error);
        let descriptor = serde_json::to_vec(target).map_err(|error| doing(error.into()))?;
        let mut child = Command::new(self.0.bin_dir.join(program))
            .args(["-name", name, "-digest", target.digest.as_str()])
            .args(["-stdin-media-type", "application/vnd.oci.descriptor.v1+json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(doing)?;
        let input = child.stdin.take();
        let feed = async move {
            if let Some(mut input) = input {
                let _ = input.write_all(&descriptor).await; // a program need not care
            }
        };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let ((), said, complained) = tokio::join!(feed, words(out), words(err));
        let status = child.wait().await.map_err(doing)?;
        tracing::debug!(verifier = program, %status, stderr = complained, "image verifier ran");
        if status.success() {
            return Ok(Judgement { ok: true, reason: format!("{program} => {said}") });
        }
        Ok(Judgement { ok: false, reason: format!("verifier {program} rejected the image ({status}): {said}") })
    }
}

/// What comes out of a program, shortened and printable; the rest is read and dropped.
async fn words(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut text = Vec::new();
    let _ = (&mut from).take(MAX_OUTPUT).read_to_end(&mut text).await; // what was read before it broke is shown
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await; // so that the program is never blocked
    let text = String::from_utf8_lossy(&text);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
