//! Specs in the hands of a real runc: a pause-like sandbox and containers that join it and say what they see.
//! Skipped with a word where there is no runc, no static busybox or no root.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod fixture;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use fixture::Case;
use kevel_cri_spec::{Mount, Profile, SandboxPaths, Spec};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";

struct Bench {
    dir: TempDir,
    sandbox: String,
}

impl Bench {
    fn new() -> Option<Self> {
        let works =
            |program: &str, arg: &str| Command::new(program).arg(arg).output().is_ok_and(|out| out.status.success());
        if !rootful() || !works("runc", "--version") || !works(BUSYBOX, "true") {
            println!("skipped: needs root, runc and {BUSYBOX}");
            return None;
        }
        let dir = TempDir::new().unwrap();
        for name in ["hostname", "hosts", "resolv.conf"] {
            fs::write(dir.path().join(name), format!("this is {name}\n")).unwrap();
        }
        fs::create_dir(dir.path().join("shm")).unwrap();
        let sandbox = format!("kevel-spec-{}", std::process::id());
        Some(Self { dir, sandbox })
    }

    fn paths(&self) -> SandboxPaths {
        let file = |name: &str| Some(self.dir.path().join(name).display().to_string());
        SandboxPaths {
            hostname: file("hostname"),
            hosts: file("hosts"),
            resolv_conf: file("resolv.conf"),
            shm: file("shm"),
            ..SandboxPaths::default()
        }
    }

    /// A case for this machine: as little of the node as the daemon of a container would have.
    fn case(&self) -> Case {
        Case::with(|case| {
            case.pod.id.clone_from(&self.sandbox);
            case.pod.cgroup_parent = format!("/{}-cgroup", self.sandbox);
            case.paths = self.paths();
            case.sandbox_paths = self.paths();
            case.node.unified_cgroups = !Path::new("/sys/fs/cgroup/memory").exists();
            case.node.swap_controller = false;
            case.node.capabilities = vec!["CAP_CHOWN".into(), "CAP_NET_ADMIN".into(), "CAP_KILL".into()];
            case.node.devices = vec![];
            case.policy.restrict_oom_score_adj = true;
            case.container.resources = None;
            case.image.working_dir = "/".into();
            case.image.entrypoint = vec!["/bin/sh".into(), "-c".into()];
        })
    }

    fn bundle(&self, id: &str, spec: &Spec) -> PathBuf {
        let bundle = self.dir.path().join(id);
        fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
        for name in ["busybox", "sh"] {
            fs::copy(BUSYBOX, bundle.join("rootfs/bin").join(name)).unwrap();
        }
        fs::write(bundle.join("config.json"), spec.to_vec()).unwrap();
        bundle
    }

    fn runc(&self, arguments: &[&str]) -> Output {
        Command::new("runc").arg("--root").arg(self.dir.path().join("state")).args(arguments).output().unwrap()
    }

    fn run(&self, id: &str, spec: &Spec) -> String {
        let bundle = self.bundle(id, spec);
        let out = self.runc(&["run", "--bundle", bundle.to_str().unwrap(), id]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        text
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.runc(&["delete", "--force", &self.sandbox]);
        // runc leaves the parent; it is ours by name.
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(controller.path().join(format!("{}-cgroup", self.sandbox)));
        }
    }
}

fn rootful() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line == "Uid:\t0\t0\t0\t0")
}

#[test]
fn a_pod_runs() {
    let Some(bench) = Bench::new() else { return };
    let mut case = bench.case();
    case.image.cmd = vec!["/bin/busybox sleep 1000".into()];
    case.pod.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    case.pod.seccomp = Some(Profile::RuntimeDefault);
    let bundle = bench.bundle(&bench.sandbox, &case.sandbox().unwrap());
    let log = bench.dir.path().join("out");
    let status = Command::new("runc")
        .arg("--root")
        .arg(bench.dir.path().join("state"))
        .args(["run", "--detach", "--bundle"])
        .args([bundle.as_os_str(), bench.sandbox.as_ref()])
        .stdin(std::process::Stdio::null())
        .stdout(fs::File::create(&log).unwrap())
        .stderr(fs::File::options().append(true).open(&log).unwrap())
        .status()
        .unwrap();
    assert!(status.success(), "{}", fs::read_to_string(log).unwrap());
    let state: serde_json::Value = serde_json::from_slice(&bench.runc(&["state", &bench.sandbox]).stdout).unwrap();
    case.paths = case.paths.with_process(u32::try_from(state["pid"].as_u64().unwrap()).unwrap());

    let ask = |name: &str, change: &dyn Fn(&mut Case), script: &str| {
        let mut case = bench.case();
        case.paths = bench.paths().with_process(u32::try_from(state["pid"].as_u64().unwrap()).unwrap());
        case.container.seccomp = Some(Profile::RuntimeDefault);
        case.image.cmd = vec![script.into()];
        case.container.id = format!("{}-{name}", bench.sandbox);
        change(&mut case);
        let spec = case.container().unwrap();
        bench.run(&case.container.id, &spec)
    };
    let plain = ask(
        "plain",
        &|_| {},
        "busybox hostname; busybox cat /etc/hosts; busybox id -u; busybox ps | busybox wc -l; echo $HOSTNAME",
    );
    assert_eq!(plain.lines().take(3).collect::<Vec<_>>(), ["web-0", "this is hosts", "0"], "{plain}");
    assert!(plain.lines().nth(3).unwrap().trim().parse::<u32>().unwrap() >= 4, "the sandbox is visible: {plain}");
    assert_eq!(plain.lines().nth(4), Some("web-0"));
    let locked = ask(
        "locked",
        &|case| {
            case.container.user.uid = 1000;
            case.container.user.supplemental_groups = vec![3000];
            case.container.readonly_rootfs = true;
            case.container.no_new_privileges = true;
            case.container.capabilities.drop = vec!["ALL".into()];
        },
        "busybox id -u; busybox id -G; busybox grep -E 'NoNewPrivs|CapBnd|Seccomp:' /proc/self/status; busybox touch /x 2>&1; true",
    );
    assert!(locked.starts_with("1000\n0 3000\n"), "{locked}");
    for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "touch: /x: Read-only file system"] {
        assert!(locked.contains(line), "{line} in {locked}");
    }
    let mounts = ask(
        "mounts",
        &|case| {
            let shm = case.paths.shm.clone().unwrap();
            let mount = |place: &str, readonly| Mount {
                container_path: place.into(),
                host_path: shm.clone(),
                readonly,
                ..Mount::default()
            };
            case.container.mounts = vec![mount("/data/sub/deep", true), mount("/data/sub", false)];
        },
        "echo x > /data/sub/file; busybox cat /dev/shm/file; echo y > /data/sub/deep/no || echo refused",
    );
    assert_eq!(mounts.lines().collect::<Vec<_>>(), ["x", "refused"], "{mounts}");
}
