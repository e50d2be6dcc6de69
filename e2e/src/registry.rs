//! A registry on loopback with the test images in it, made by `hack/test-images`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::Value;

use crate::{NodeOptions, machine, program};

/// A running registry; stopped and removed when dropped, if it is the test's own.
pub struct Registry {
    _own: Option<Own>,
    _hosts: Option<tempfile::TempDir>,
    facts: Value,
}

struct Own {
    script: PathBuf,
    dir: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry with the named images of `e2e/images/catalog.py`, unless one with all of them is told to run already.
    pub fn start(images: &[&str]) -> anyhow::Result<Self> {
        if let Some(path) = machine::registry_facts() {
            let facts = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let mut facts: Value = serde_json::from_slice(&facts)?;
            // Tests change what leads to it.
            let hosts = tempfile::Builder::new().prefix("kevel-hosts-").tempdir()?;
            let (from, to) = (facts["hosts_dir"].as_str().unwrap_or_default(), hosts.path().display().to_string());
            program::run(Path::new("/bin/cp"), &["-r", &format!("{from}/."), &to])?.ok()?;
            facts["hosts_dir"] = to.into();
            return Ok(Self { _own: None, _hosts: Some(hosts), facts });
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/test-images");
        let dir = tempfile::Builder::new().prefix("kevel-reg-").tempdir()?;
        let folder = dir.path().to_str().context("temporary directory")?;
        let said = program::run(&script, &["--dir", folder, "--only", &images.join(",")])?.ok()?;
        let facts = serde_json::from_str(&said).context("what hack/test-images says")?;
        Ok(Self { _own: Some(Own { script, dir }), _hosts: None, facts })
    }

    /// The directory of `hosts.toml` files that leads to it.
    pub fn hosts_dir(&self) -> &str {
        self.facts["hosts_dir"].as_str().unwrap_or_default()
    }

    /// The complete reference of an image.
    pub fn reference(&self, image: &str) -> &str {
        self.facts["images"][image]["ref"].as_str().unwrap_or_default()
    }

    /// Options of a node that pulls from here, and whose pods' sandboxes are made from `pause`.
    pub fn node_options(&self) -> NodeOptions {
        NodeOptions {
            hosts_dir: self.hosts_dir().to_owned(),
            sandbox_image: self.reference("pause").to_owned(),
            ..NodeOptions::default()
        }
    }

    /// What is known of an image: digests, layers, what it must unpack to.
    pub fn image(&self, image: &str) -> &Value {
        &self.facts["images"][image]
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.path().to_str() {
            let _ = program::run(&self.script, &["--dir", dir, "--stop"]);
        }
    }
}
