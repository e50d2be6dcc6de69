//! The rules of ARCHITECTURE.md that neither the compiler nor clippy checks: who may depend on whom, who may say what,
//! and how a file begins. Runs as a test and as `cargo xtask tidy`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Which crates of ours each crate may use in its code (tests may use more). A crate that is not here is refused, so a
/// new one begins with a line in this table.
const MAY_USE: &[(&str, &[&str])] = &[
    ("kevel-model", &[]),
    ("kevel-plugin", &[]),
    ("kevel-proto", &[]),
    ("kevel-ttrpc", &[]),
    ("kevel-contract", &["kevel-model", "kevel-plugin"]),
    ("kevel-database", &["kevel-model"]),
    ("kevel-mount", &["kevel-model"]),
    ("kevel-cgroup", &["kevel-mount"]),
    ("kevel-engine", &[]),
    ("kevel-event", &["kevel-contract", "kevel-model", "kevel-plugin"]),
    ("kevel-content", &["kevel-contract", "kevel-model", "kevel-plugin"]),
    ("kevel-snapshot", &["kevel-contract", "kevel-database", "kevel-model", "kevel-mount", "kevel-plugin"]),
    ("kevel-diff", &["kevel-contract", "kevel-model", "kevel-mount", "kevel-plugin"]),
    ("kevel-registry", &["kevel-model"]),
    (
        "kevel-metadata",
        &["kevel-contract", "kevel-database", "kevel-model", "kevel-mount", "kevel-plugin", "kevel-proto"],
    ),
    (
        "kevel-transfer",
        &["kevel-contract", "kevel-diff", "kevel-model", "kevel-mount", "kevel-plugin", "kevel-registry"],
    ),
    ("kevel-monitor", &["kevel-cgroup", "kevel-contract", "kevel-model", "kevel-plugin", "kevel-proto"]),
    (
        "kevel-runtime",
        &["kevel-cgroup", "kevel-contract", "kevel-model", "kevel-mount", "kevel-plugin", "kevel-proto", "kevel-ttrpc"],
    ),
    ("kevel-service", &["kevel-client", "kevel-contract", "kevel-model", "kevel-plugin", "kevel-proto", "kevel-ttrpc"]),
    ("kevel-client", &["kevel-contract", "kevel-model", "kevel-plugin", "kevel-proto"]),
    ("kevel-shim", &["kevel-plugin", "kevel-proto", "kevel-ttrpc"]),
    (
        "kevel-shim-kevel",
        &["kevel-cgroup", "kevel-model", "kevel-mount", "kevel-plugin", "kevel-proto", "kevel-shim", "kevel-ttrpc"],
    ),
    ("kevel-cri-cdi", &["kevel-model"]),
    ("kevel-cri-spec", &["kevel-model"]),
    ("kevel-cri-network", &[]),
    ("kevel-cri-logs", &["kevel-model"]),
    ("kevel-cri-nri", &["kevel-contract", "kevel-model", "kevel-plugin", "kevel-proto", "kevel-ttrpc"]),
    ("kevel-cri-streaming", &["kevel-model"]),
    (
        "kevel-cri-server",
        &[
            "kevel-cgroup",
            "kevel-contract",
            "kevel-cri-cdi",
            "kevel-cri-logs",
            "kevel-cri-network",
            "kevel-cri-nri",
            "kevel-cri-spec",
            "kevel-cri-streaming",
            "kevel-model",
            "kevel-mount",
            "kevel-plugin",
            "kevel-proto",
            "kevel-service",
        ],
    ),
    ("kevel-otlp", &["kevel-contract", "kevel-model", "kevel-plugin"]),
    ("kevel-daemon", &["*"]),
    ("kevel-xtask", &[]),
    ("kevel-bench", &["kevel-proto"]),
    ("kevel-e2e", &["kevel-client", "kevel-contract", "kevel-model", "kevel-proto"]),
];

/// Words that code may hold only below some folders, and why.
const WORDS: &[(&str, &[&str], &str)] = &[
    ("redb::", &["core/database/"], "only the database crate opens a database"),
    (
        "kevel_proto::",
        &[
            "proto/",
            "core/service/",
            "core/client/",
            "core/daemon/",
            "core/runtime/",
            "core/metadata/",
            "core/monitor/",
            "core/shim/",
            "core/shim-kevel/",
            "cri/server/",
            "cri/nri/",
            "e2e/",
            "hack/kevel-bench/",
        ],
        "only the edges convert to and from wire types",
    ),
    (
        "tokio::",
        &["!core/model/", "!cri/spec/", "!core/plugin/"],
        "no I/O and no async in the nouns, the graph and the spec",
    ),
];

/// A file of code is refused when it is longer; the aim is 400.
const MAX_LINES: usize = 900;

/// Checks everything; the error lists every breach.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = root();
    let mut breaches = Vec::new();
    dependencies(&root, &mut breaches)?;
    for file in tracked(&root)? {
        source(&root, &file, &mut breaches)?;
    }
    if breaches.is_empty() {
        return Ok(());
    }
    breaches.sort();
    bail!("{} breaches of ARCHITECTURE.md:\n{}", breaches.len(), breaches.join("\n"));
}

fn root() -> PathBuf {
    // hack/xtask lies two folders below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Rust files that git tracks, without generated ones.
fn tracked(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git").arg("-C").arg(root).args(["ls-files", "*.rs"]).output().context("running git")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let list = String::from_utf8(output.stdout)?;
    let files = list.lines().filter(|file| !file.contains("/gen/") && root.join(file).exists());
    Ok(files.map(str::to_owned).collect())
}

fn dependencies(root: &Path, breaches: &mut Vec<String>) -> anyhow::Result<()> {
    let allowed: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let workspace: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    let members = workspace["workspace"]["members"].as_array().context("workspace.members")?;
    for member in members.iter().filter_map(toml::Value::as_str) {
        let path = root.join(member).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let manifest: toml::Table = text.parse()?;
        let name = manifest["package"]["name"].as_str().context("package.name")?;
        let Some(may) = allowed.get(name) else {
            breaches.push(format!("{member}: {name} has no line in the table of who may use whom"));
            continue;
        };
        let uses = manifest.get("dependencies").and_then(toml::Value::as_table);
        for (dependency, value) in uses.into_iter().flatten() {
            if dependency.starts_with("kevel-") && !may.contains(&"*") && !may.contains(&dependency.as_str()) {
                breaches.push(format!("{member}: {name} must not use {dependency}"));
            }
            if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                breaches.push(format!("{member}: {dependency} does not come from the workspace table"));
            }
        }
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(toml::Value::as_bool) != Some(true) {
            breaches.push(format!("{member}: does not take the workspace's lints"));
        }
    }
    Ok(())
}

fn source(root: &Path, file: &str, breaches: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(root.join(file)).with_context(|| format!("reading {file}"))?;
    if !text.starts_with("//!") && !text.starts_with("#![") {
        breaches.push(format!("{file}: does not open with //! and what lives here"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        breaches.push(format!("{file}: {lines} lines, more than {MAX_LINES}"));
    }
    if file.starts_with("hack/xtask/") || file.contains("/tests/") || file.ends_with("/tests.rs") {
        return Ok(());
    }
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    for (word, folders, why) in WORDS {
        let said = code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word));
        if said && !permitted(file, folders) {
            breaches.push(format!("{file}: says {word:?}, but {why}"));
        }
    }
    for (number, line) in code.lines().enumerate() {
        if says_pod(file, line) {
            breaches.push(format!("{file}:{}: core says \"pod\" outside contract::sandbox", number + 1));
        }
    }
    Ok(())
}

/// `folders` lists where something may be; entries with `!` where it must not be, with everywhere else fine.
fn permitted(file: &str, folders: &[&str]) -> bool {
    if folders.iter().any(|folder| folder.starts_with('!')) {
        return !folders.iter().any(|folder| file.starts_with(&folder[1..]));
    }
    folders.iter().any(|folder| file.starts_with(folder))
}

/// Whether a line of core's code (not a comment, not a wire name) names a pod.
fn says_pod(file: &str, line: &str) -> bool {
    let core = file.starts_with("core/")
        && !["core/contract/src/sandbox/", "core/daemon/", "core/contract/src/lib.rs"]
            .iter()
            .any(|at| file.starts_with(at));
    let line = line.trim_start();
    core && !line.starts_with("//")
        && line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| matches!(word, "pod" | "pods" | "Pod" | "Pods"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        run().unwrap();
    }

    #[test]
    fn words_and_places() {
        assert!(permitted("core/database/src/lib.rs", &["core/database/"]));
        assert!(!permitted("core/metadata/src/lib.rs", &["core/database/"]));
        assert!(!permitted("cri/spec/src/lib.rs", &["!cri/spec/"]));
        assert!(permitted("cri/server/src/lib.rs", &["!cri/spec/"]));
        assert!(says_pod("core/runtime/src/x.rs", "let pod = 1;"));
        assert!(!says_pod("core/runtime/src/x.rs", "// a pod's shim"));
        assert!(!says_pod("core/runtime/src/x.rs", "podsandbox"));
        assert!(!says_pod("cri/server/src/x.rs", "let pod = 1;"));
    }
}
