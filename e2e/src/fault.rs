//! Faults on purpose, from outside of the daemon: the programs that it runs (a CNI plugin at the end of the chain, the OCI
//! runtime) can be held, or made to fail, at a named point.
//!
//! Points are `cni-ADD`, `cni-DEL`, `cni-STATUS`, `cni-GC`, `cni-CHECK` and `runc-VERB`, the verb being runc's.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{Node, NodeOptions, find, until};

/// The shell's part of every program: notes that the point was reached, fails there, or waits there.
const GATE: &str = r#"
gate() {
  echo "$1 $2" >>"$dir/log"
  if [ -e "$dir/once-$1" ]; then rm "$dir/once-$1"; echo "fails once at $1" >&2; exit 1; fi
  if [ -e "$dir/fail-$1" ]; then echo "fails on purpose at $1" >&2; exit 1; fi
  if [ -e "$dir/hold-$1" ]; then
    : >"$dir/at-$1"
    while [ -e "$dir/hold-$1" ]; do sleep 0.02; done
  fi
}
"#;

/// The plugin at the end of the chain, which gives on what the one before it answered, or an address of its own.
const PLUGIN: &str = r#"
input=$(cat)
versions='["0.4.0","1.0.0","1.1.0"]'
[ "$CNI_COMMAND" = VERSION ] && echo "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":$versions}" && exit 0
printf '%s\n' "$input" >"$dir/stdin-$CNI_COMMAND"
gate "cni-$CNI_COMMAND" "$CNI_CONTAINERID"
[ "$CNI_COMMAND" = ADD ] || exit 0
printf '%s' "$input" | python3 -c 'import json, sys
config = json.load(sys.stdin)
own = {"cniVersion": config["cniVersion"], "ips": [{"address": "192.0.2.7/24"}]}
print(json.dumps(config.get("prevResult", own)))'
"#;

/// The runtime in front of the real one.
const RUNTIME: &str = r#"
verb=
for word; do
  case $word in create|start|kill|delete|exec|state|update|pause|resume|checkpoint|restore)
    verb=$word
    if [ "$verb" = checkpoint ] && [ -e "$dir/hold-runc-checkpoint" ]; then
      "$dir/programs/criu" swrk </dev/null >/dev/null 2>&1 & # as runc runs it
    fi
    gate "runc-$word" "$*"; break ;;
  esac
done
if [ -e "$dir/emulate" ]; then
  case $verb in checkpoint|restore) . "$dir/emulation" ;; esac
fi
exec "$runc" "$@"
"#;

/// CRIU that says it works, or that it does not; at work it goes on as long as its runtime is held.
const CRIU: &str = r#"
if [ "$1" = swrk ]; then while [ -e "$dir/hold-runc-checkpoint" ]; do sleep 0.02; done; exit 0; fi
if [ -e "$dir/criu-broken" ]; then echo "Error (criu/made.c:1): broken on purpose" >&2; exit 1; fi
"#;

/// What stands in for CRIU where the kernel or the machine has none that works. A checkpoint is one image, with the number
/// of the checkpoint in it; the hostile one has a link beside it. A restored container begins anew, once the image was
/// found, and what the image holds is logged.
const EMULATION: &str = r#"
images= work=
n=$#
while [ "$n" -gt 0 ]; do
  word=$1; shift; n=$((n - 1))
  case $word in
    --image-path) images=$1; shift; n=$((n - 1)) ;;
    --work-path) work=$1; shift; n=$((n - 1)) ;;
    restore) set -- "$@" run ;;
    *) set -- "$@" "$word" ;;
  esac
done
if [ "$verb" = checkpoint ]; then
  number=$(cat "$dir/checkpoints" 2>/dev/null || echo 0)
  echo $((number + 1)) >"$dir/checkpoints"
  mkdir -p "$images" "$work"
  echo "$number" >"$images/core-1.img"
  echo "dumped" >"$work/dump.log"
  [ -e "$dir/hostile" ] && ln -s /etc/shadow "$images/pages-1.img"
  if [ -e "$dir/half" ]; then echo 'Error (criu/mem.c:1): made up' >>"$work/dump.log"; echo "half of it" >&2; exit 1; fi
  exit 0
fi
read -r number <"$images/core-1.img" || exit 1
echo "restored $number" >>"$dir/log"
"#;

/// Programs with gates, and the directories of what they make.
pub struct Faults {
    dir: tempfile::TempDir,
}

impl Faults {
    /// Writes the programs.
    pub fn new() -> anyhow::Result<Self> {
        let faults = Self { dir: tempfile::Builder::new().prefix("kevel-fault-").tempdir()? };
        fs::create_dir(faults.path("bin"))?;
        faults.program("bin/gate", PLUGIN, "")?;
        faults.program("bin/runc", RUNTIME, &format!("runc={}", find("runc")?.display()))?;
        Ok(faults)
    }

    /// From now on checkpoints are made, and restored, without CRIU: see [`EMULATION`].
    pub fn emulate_criu(&self) -> anyhow::Result<()> {
        fs::write(self.path("emulation"), EMULATION)?;
        fs::create_dir_all(self.path("programs"))?;
        self.program("programs/criu", CRIU, "")?;
        self.set("emulate")
    }

    /// Sets one of the switches that programs look at.
    pub fn set(&self, switch: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.path(switch), "")?)
    }

    /// Takes a switch back.
    pub fn unset(&self, switch: &str) {
        let _ = fs::remove_file(self.path(switch));
    }

    /// What the programs noted so far, a line each.
    pub fn noted(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A path below the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, body: &str, more: &str) -> anyhow::Result<()> {
        let dir = self.dir.path().display();
        fs::write(self.path(name), format!("#!/bin/sh\ndir={dir}\n{more}\n{GATE}\n{body}"))?;
        Ok(fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755))?)
    }

    /// A node that runs these programs, not started yet: its handler `runc` and the end of its network. `cni` and
    /// `runtime` are lines for the tables of those names.
    pub fn node(&self, mut options: NodeOptions, cni: &str, runtime: &str) -> anyhow::Result<Node> {
        let dir = self.dir.path().display();
        let more = std::mem::take(&mut options.config);
        options.config = format!(
            r#"bin_dirs = ["{dir}/bin", "/usr/lib/cni"]
{cni}
[plugins."io.containerd.cri.v1.runtime"]
netns_mounts_under_state_dir = true
{runtime}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{dir}/bin/runc"
Root = "{dir}/runc"
{more}"#
        );
        let node = Node::prepare(&options)?;
        self.network(&node, "1.0.0", "")?;
        Ok(node)
    }

    /// Writes the node's network: a bridge of its own, local addresses, and the gate. `more` are members of the gate's
    /// configuration, each with a comma before it.
    pub fn network(&self, node: &Node, version: &str, more: &str) -> anyhow::Result<()> {
        let (mark, bridge, subnet) = (node.mark(), node.bridge(), node.subnet());
        let data = self.path("ipam");
        let bridge = format!(
            r#"{{"type":"bridge","bridge":"{bridge}","isGateway":true,"ipam":{{"type":"host-local",
              "ranges":[[{{"subnet":"{subnet}"}}]],"dataDir":"{}"}}}},"#,
            data.display()
        );
        // Debian's bridge does not speak 1.1.0; there the gate is alone.
        let bridge = if version == "1.1.0" { "" } else { &bridge };
        let list =
            format!(r#"{{"cniVersion":"{version}","name":"{mark}","plugins":[{bridge}{{"type":"gate"{more}}}]}}"#);
        fs::create_dir_all(node.path("net.d"))?;
        Ok(fs::write(node.path("net.d/10-e2e.conflist"), list)?)
    }

    /// From now on whoever comes to the point waits there.
    pub fn hold(&self, point: &str) -> anyhow::Result<()> {
        let _ = fs::remove_file(self.path(&format!("at-{point}")));
        Ok(fs::write(self.path(&format!("hold-{point}")), "")?)
    }

    /// From now on whoever comes to the point fails.
    pub fn fail(&self, point: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.path(&format!("fail-{point}")), "")?)
    }

    /// The next one that comes to the point fails.
    pub fn fail_once(&self, point: &str) -> anyhow::Result<()> {
        self.set(&format!("once-{point}"))
    }

    /// Ends a hold or failure.
    pub fn release(&self, point: &str) {
        for kind in ["hold", "fail"] {
            let _ = fs::remove_file(self.path(&format!("{kind}-{point}")));
        }
    }

    /// Waits until somebody waits at the point.
    pub fn reached(&self, point: &str) -> anyhow::Result<()> {
        let at = self.path(&format!("at-{point}"));
        until(&format!("{point} to be reached"), || at.exists().then_some(()))
    }

    /// How often the point was reached.
    pub fn count(&self, point: &str) -> usize {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| line.split(' ').next() == Some(point)).count()
    }

    /// What the gate's plugin last read for a verb.
    pub fn request(&self, verb: &str) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&fs::read(self.path(&format!("stdin-{verb}")))?)?)
    }

    /// What the plugins and the runtime have of pods: addresses and containers.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        files(&self.path("ipam"), &mut left);
        // host-local's own files beside the addresses.
        left.retain(|path| !path.ends_with("/lock") && !path.contains("/last_reserved_ip"));
        for namespace in fs::read_dir(self.path("runc")).into_iter().flatten().flatten() {
            for container in fs::read_dir(namespace.path()).into_iter().flatten().flatten() {
                left.push(container.path().display().to_string());
            }
        }
        left.sort();
        left
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("hold-") || name.starts_with("fail-") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Files below a directory.
fn files(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), found),
            _ => found.push(entry.path().display().to_string()),
        }
    }
}
