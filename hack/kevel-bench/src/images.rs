//! The images that both runtimes pull, served by `hack/test-images`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::process::Command;

/// A registry with the images of a run.
pub(crate) struct Images {
    dir: PathBuf,
    temporary: Option<tempfile::TempDir>,
    facts: Value,
    quick: bool,
}

impl Images {
    /// Builds and serves the images that are wanted; in `kept`, if that is given, where a later run finds them.
    pub(crate) async fn serve(kept: Option<&Path>, quick: bool, big: bool) -> anyhow::Result<Self> {
        let temporary = match kept {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("kevel-bench-images-").tempdir()?),
        };
        let dir = kept.or(temporary.as_ref().map(tempfile::TempDir::path)).context("a folder for images")?.to_owned();
        let mut images = Self { dir, temporary, facts: Value::Null, quick };
        let mut names = vec!["busybox", "pause"];
        if big {
            names.extend([images.catalog("gzip"), images.catalog("zstd"), images.catalog("single")]);
        }
        images.facts = script(&images.dir, &["--only", &names.join(",")]).await?;
        Ok(images)
    }

    /// The name in the catalog of test images of what a row is about.
    fn catalog(&self, what: &str) -> &'static str {
        match (what, self.quick) {
            ("gzip", false) => "bench-layers",
            ("zstd", false) => "bench-layers-zstd",
            ("single", false) => "bench-single",
            ("gzip", true) => "layers",
            ("zstd", true) => "layers-zstd",
            ("single", true) => "layers-docker",
            ("pause", _) => "pause",
            _ => "busybox",
        }
    }

    /// The reference of `busybox`, `pause`, `gzip`, `zstd` or `single`.
    pub(crate) fn reference(&self, what: &str) -> String {
        self.facts["images"][self.catalog(what)]["ref"].as_str().unwrap_or_default().to_owned()
    }

    /// The folder of `hosts.toml` files that leads to the registry.
    pub(crate) fn hosts_dir(&self) -> &str {
        self.facts["hosts_dir"].as_str().unwrap_or_default()
    }

    /// Ends the registry, unless its images are kept.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        if self.temporary.is_some() {
            script(&self.dir, &["--stop"]).await?;
        }
        Ok(())
    }
}

async fn script(dir: &Path, arguments: &[&str]) -> anyhow::Result<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-images");
    let output = Command::new(&script).arg("--dir").arg(dir).args(arguments).output().await;
    let output = output.with_context(|| format!("running {}", script.display()))?;
    if !output.status.success() {
        bail!("hack/test-images: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("what hack/test-images says")
}
