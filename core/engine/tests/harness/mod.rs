//! What the tests share: bundles with a root of one static busybox, and a runtime's command line.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test helper fails its test")]
#![allow(clippy::disallowed_methods, reason = "tests look for binaries in PATH, as a user would")]

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

const APPLETS: [&str; 30] = [
    "sh",
    "cat",
    "true",
    "false",
    "sleep",
    "ls",
    "id",
    "mount",
    "stat",
    "env",
    "hostname",
    "grep",
    "sed",
    "readlink",
    "mkdir",
    "touch",
    "rm",
    "test",
    "uname",
    "echo",
    "ulimit",
    "dd",
    "cut",
    "sort",
    "pwd",
    "mknod",
    "ionice",
    "chrt",
    "dnsdomainname",
    "kill",
];

static COUNT: AtomicUsize = AtomicUsize::new(0);

pub fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The engine's command line, which is an example.
pub fn ours() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let engine = test.parent().unwrap().parent().unwrap().join("examples/engine");
    assert!(engine.exists(), "{engine:?} is missing; cargo build --workspace --examples");
    engine
}

/// The newest runc there is.
pub fn runc() -> PathBuf {
    in_path("runc-1.4").or_else(|| in_path("runc")).expect("runc is not in PATH; hack/install-deps")
}

/// A place for bundles, which processes in user namespaces can reach.
pub fn place() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("kevel-engine").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

pub fn spec(script: &str) -> Value {
    let namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "network", "cgroup"].iter().map(|kind| json!({ "type": kind })).collect();
    let caps = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_MKNOD", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin", "A=1"],
            "capabilities": {"bounding": caps, "permitted": caps, "effective": caps},
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {"namespaces": namespaces},
    })
}

/// A bundle with its own root; owned by `owner` for user namespaces.
pub fn bundle(base: &Path, name: &str) -> PathBuf {
    let bundle = base.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let root = bundle.join("rootfs");
    for dir in ["bin", "proc", "dev", "sys", "tmp", "mnt", "etc", "data/sub"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let busybox = base.join("busybox");
    if !busybox.exists() {
        fs::copy(in_path("busybox").expect("busybox is not in PATH; install busybox-static"), &busybox).unwrap();
    }
    fs::hard_link(busybox, root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("data/file"), "file\n").unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n").unwrap();
    symlink("/data/file", root.join("data/link")).unwrap();
    symlink("/data/sub", root.join("data/dirlink")).unwrap();
    bundle
}

pub fn write_spec(bundle: &Path, spec: &Value) {
    fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
}

/// A runtime with a state directory of its own.
pub struct Runtime {
    pub program: PathBuf,
    pub root: PathBuf,
}

impl Runtime {
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(args).stdin(Stdio::null());
        command
    }

    pub fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// For calls that leave a container behind: its process keeps the streams, so they are files.
    pub fn leave(&self, args: &[&str]) -> (bool, String) {
        let mut file = tempfile::tempfile().unwrap();
        let status =
            self.command(args).stdout(file.try_clone().unwrap()).stderr(file.try_clone().unwrap()).status().unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        (status.success(), text)
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Everything of this test that could have stayed: mounts and cgroups with its marker in their names.
pub fn leftovers(marker: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(marker)).map(str::to_owned));
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(marker) {
                    found.push(entry.path().display().to_string());
                }
                dirs.push(entry.path());
            }
        }
    }
    found
}
