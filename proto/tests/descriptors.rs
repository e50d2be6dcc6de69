//! Our `.proto` files against those that independent bindings ship, so that a misreading of ours cannot hide.
//!
//! The crates `k8s-cri`, `containerd-client` and `containerd-shim-protos` carry the definitions that they were built
//! from. They are not dependencies, since they need `protoc` and second copies of half of ours: the test asks cargo for
//! their sources only. Each message, enum and service that such a crate knows must be equal in ours: names, numbers,
//! types, labels, presence, oneofs, packing, methods and their directions. What a newer version changed is listed in
//! [`known`] with a reason, and a listed difference that is not there is an error as well.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "in test helpers, a panic is the report")]

mod facts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use facts::Facts;

/// A binding to compare with: the crate, its exact version, and where its `.proto` files are.
struct Binding {
    package: &'static str,
    version: &'static str,
    folder: &'static str,
    /// Where its imports are looked up besides.
    imports: &'static [&'static str],
    /// Packages that we do not have, and why.
    absent: &'static [(&'static str, &'static str)],
    /// Differences that are right: what differs (`-` theirs only, `+` ours only, `~` both but unequal), and why.
    known: &'static [(&'static str, &'static [&'static str])],
}

#[test]
fn cri_equals_k8s_cri() {
    check(&known::K8S_CRI, 150);
}

#[test]
fn containerd_equals_containerd_client() {
    check(&known::CONTAINERD_CLIENT, 200);
}

#[test]
fn shim_equals_containerd_shim_protos() {
    check(&known::CONTAINERD_SHIM_PROTOS, 100);
}

#[test]
fn both_task_versions_are_one() {
    let ours = ours();
    let only = |version: &str| -> BTreeSet<String> {
        let package = format!("containerd.task.{version}.");
        let facts = ours.iter().filter(|(path, _)| path.starts_with(&package));
        facts.map(|(path, fact)| format!("{path} {fact}").replace(&package, "containerd.task.")).collect()
    };
    assert!(only("v2").len() > 90, "{}", only("v2").len());
    assert_eq!(only("v2"), only("v3"));
}

#[test]
fn cri_has_all_its_methods() {
    let ours = ours();
    let count = |service: &str| ours.iter().filter(|(path, _)| path.starts_with(&format!("{service}."))).count();
    assert_eq!((count("runtime.v1.RuntimeService"), count("runtime.v1.ImageService")), (37, 6));
}

/// Compares all that `binding` ships with ours; `at_least` is how many messages, enums and services that must be.
fn check(binding: &Binding, at_least: usize) {
    let ours = ours();
    let mut compared = BTreeSet::new();
    let mut found = BTreeSet::new();
    let source = source(binding);
    for file in proto_files(&source.join(binding.folder)) {
        let mut roots = vec![file.root];
        roots.extend(binding.imports.iter().map(|folder| source.join(folder)));
        let theirs = Facts::compile(&file.path, &roots);
        if binding.absent.iter().any(|(package, _)| *package == theirs.package()) {
            continue;
        }
        found.extend(theirs.differences(&ours));
        compared.extend(theirs.definitions().filter(|name| ours.defines(name)).map(str::to_owned));
    }
    let known: BTreeSet<String> =
        binding.known.iter().flat_map(|(_, paths)| paths.iter()).map(|path| (*path).to_owned()).collect();

    let what = format!("{} {}", binding.package, binding.version);
    let surprising: Vec<_> = found.iter().filter(|line| !known.contains(path(line))).collect();
    let gone: Vec<_> = known.iter().filter(|entry| !found.iter().any(|line| path(line) == entry.as_str())).collect();
    assert!(surprising.is_empty(), "differences from {what}:\n{surprising:#?}");
    assert!(gone.is_empty(), "listed for {what}, but not different:\n{gone:#?}");
    assert!(compared.len() >= at_least, "only {} definitions in common with {what}", compared.len());
    println!("{what}: {} definitions compared, {} known differences", compared.len(), found.len());
}

/// A difference without its explanation: sign and path.
fn path(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(path, _)| path)
}

fn ours() -> Facts {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut all = Facts::default();
    for file in proto_files(&root) {
        all.extend(Facts::compile(&file.path, &[file.root]));
    }
    all
}

struct ProtoFile {
    root: PathBuf,
    path: PathBuf,
}

/// The `.proto` files below `root`, without the well-known types and without copies vendored a second time.
fn proto_files(root: &Path) -> Vec<ProtoFile> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("vendor") && !path.ends_with("google/protobuf") && !path.ends_with("gogoproto") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                found.push(ProtoFile { root: root.to_path_buf(), path });
            }
        }
    }
    found
}

/// Where cargo keeps the sources of a binding, downloaded when they are not there yet.
fn source(binding: &Binding) -> PathBuf {
    let scratch = tempfile::tempdir().unwrap();
    let manifest = scratch.path().join("Cargo.toml");
    let text = format!(
        "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n\
         [dependencies.{}]\nversion = \"={}\"\ndefault-features = false\n",
        binding.package, binding.version
    );
    std::fs::write(&manifest, text).unwrap();
    // Without the network first: once the sources are there, the test needs none.
    metadata(&manifest, &["--offline"])
        .or_else(|_| metadata(&manifest, &[]))
        .and_then(|metadata| folder_in(&metadata, binding.package))
        .unwrap_or_else(|error| panic!("getting the source of {} {}: {error}", binding.package, binding.version))
}

fn metadata(manifest: &Path, more: &[&str]) -> Result<serde_json::Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--quiet", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .arg("--manifest-path")
        .arg(manifest)
        .args(more)
        .current_dir(manifest.parent().unwrap())
        .output()
        .map_err(|error| format!("starting cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

fn folder_in(metadata: &serde_json::Value, package: &str) -> Result<PathBuf, String> {
    let packages = metadata["packages"].as_array().ok_or("no packages in cargo's answer")?;
    let manifest = packages
        .iter()
        .find(|candidate| candidate["name"] == package)
        .and_then(|found| found["manifest_path"].as_str())
        .ok_or("not in cargo's answer")?;
    Ok(Path::new(manifest).parent().ok_or("no folder")?.to_path_buf())
}

/// The bindings, and in what they are older than ours.
mod known {
    use super::Binding;

    pub(super) const K8S_CRI: Binding = Binding {
        package: "k8s-cri",
        version: "0.11.0",
        folder: "proto",
        imports: &[],
        absent: &[("runtime.v1alpha2", "kubelet has not spoken it since 1.26")],
        known: &[
            (
                "new in Kubernetes 1.33",
                &[
                    "+ runtime.v1.ContainerConfig.stop_signal",
                    "+ runtime.v1.ContainerStats.io",
                    "+ runtime.v1.ContainerStatus.stop_signal",
                    "+ runtime.v1.CpuUsage.psi",
                    "+ runtime.v1.LinuxPodSandboxStats.io",
                    "+ runtime.v1.MemoryUsage.psi",
                    "+ runtime.v1.Mount.image_sub_path",
                    "+ runtime.v1.RuntimeService.UpdatePodSandboxResources",
                ],
            ),
            (
                "new in Kubernetes 1.36",
                &[
                    "+ runtime.v1.ImageService.StreamImages",
                    "+ runtime.v1.ImageSpec.image_ref",
                    "+ runtime.v1.RuntimeFeatures.user_namespaces_host_network",
                    "+ runtime.v1.RuntimeService.StreamContainerStats",
                    "+ runtime.v1.RuntimeService.StreamContainers",
                    "+ runtime.v1.RuntimeService.StreamPodSandboxMetrics",
                    "+ runtime.v1.RuntimeService.StreamPodSandboxStats",
                    "+ runtime.v1.RuntimeService.StreamPodSandboxes",
                ],
            ),
            ("bytes since Kubernetes 1.36: values need not be UTF-8", &["~ runtime.v1.KeyValue.value"]),
            (
                "new in Kubernetes 1.37",
                &[
                    "+ runtime.v1.Mount.mount_options",
                    "+ runtime.v1.RuntimeFeatures.mount_options",
                    "+ runtime.v1.RuntimeService.CheckpointPod",
                    "+ runtime.v1.RuntimeService.RestorePod",
                ],
            ),
        ],
    };

    pub(super) const CONTAINERD_CLIENT: Binding = Binding {
        package: "containerd-client",
        version: "0.9.0",
        folder: "vendor",
        imports: &[],
        absent: &[],
        known: &[
            ("new in containerd api 1.10", &["+ containerd.services.snapshots.v1.CommitSnapshotRequest.parent"]),
            (
                "new in containerd api 1.11",
                &[
                    "+ containerd.services.sandbox.v1.ControllerStartResponse.spec",
                    "+ containerd.types.Platform.os_features",
                ],
            ),
            (
                "new in containerd api 1.12",
                &[
                    "+ containerd.events.ContentCreate.mediaType",
                    "+ containerd.runc.v1.CheckpointOptions.parent_path",
                    "+ containerd.services.tasks.v1.CreateTaskRequest.task_api_address",
                    "+ containerd.services.tasks.v1.CreateTaskRequest.task_api_version",
                ],
            ),
        ],
    };

    pub(super) const CONTAINERD_SHIM_PROTOS: Binding = Binding {
        package: "containerd-shim-protos",
        version: "0.12.0",
        folder: "vendor",
        imports: &["vendor/github.com/containerd/containerd/api"],
        absent: &[("containerd.runhcs.stats.v1", "Windows only")],
        known: &[(
            "new in containerd api 1.12",
            &[
                "+ containerd.events.ContentCreate.mediaType",
                "+ containerd.runc.v1.CheckpointOptions.parent_path",
                "+ containerd.runtime.bootstrap.v1.BootstrapResult.extensions",
                "+ containerd.runtime.sandbox.v1.Sandbox.UpdateSandbox",
                "+ containerd.runtime.sandbox.v1.UpdateSandboxRequest.fields",
                "+ containerd.runtime.sandbox.v1.UpdateSandboxRequest.sandbox",
            ],
        )],
    };
}
