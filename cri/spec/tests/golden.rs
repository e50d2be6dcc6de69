//! Whole specs against files in `golden/`. `UPDATE_GOLDEN=1 cargo test -p kevel-cri-spec` writes them anew; read the
//! difference before you keep it.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod fixture;

use std::{fs, path::Path};

use fixture::{Case, fuse};
use kevel_cri_spec::{
    Capabilities, Device, Error, IdMapping, Mode, Mount, Profile, Propagation, Resources, Selinux, Sharing, Spec,
    UserNamespace, exec, update,
};
use serde_json::{Value, json};

fn check(name: &str, spec: Result<Spec, Error>) {
    let text = serde_json::to_string_pretty(spec.unwrap().value()).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("json");
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests")]
    let write = std::env::var_os("UPDATE_GOLDEN").is_some();
    if write {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} is not what {} says", path.display());
}

fn userns() -> UserNamespace {
    let range = vec![IdMapping { container_id: 0, host_id: 100_000, length: 65_536 }];
    UserNamespace { mode: Mode::Pod, uids: range.clone(), gids: range }
}

#[test]
fn sandbox() {
    let case = Case::with(|case| {
        case.pod.resources = Some(Resources { cpu_shares: 1024, memory_limit: 1 << 30, ..Resources::default() });
        case.pod.sysctls.insert("net.core.somaxconn".into(), "1024".into());
        case.pod.annotations.insert("dev.gvisor.flag.debug".into(), "true".into());
        case.pod.annotations.insert("other".into(), "hidden".into());
        case.handler.pod_annotations = vec!["dev.gvisor.*".into()];
        case.pod.seccomp = Some(Profile::RuntimeDefault);
    });
    check("sandbox", case.sandbox());
}

#[test]
fn sandbox_of_the_node() {
    let case = Case::with(|case| {
        case.pod.namespaces.network = Mode::Node;
        case.pod.namespaces.pid = Mode::Node;
        case.pod.namespaces.ipc = Mode::Node;
    });
    check("sandbox_of_the_node", case.sandbox());
}

#[test]
fn sandbox_with_user_namespace() {
    check("sandbox_with_user_namespace", Case::with(|case| case.pod.namespaces.user = Some(userns())).sandbox());
}

#[test]
fn sandbox_with_user_namespace_on_the_nodes_network() {
    let case = Case::with(|case| {
        case.pod.namespaces.user = Some(userns());
        case.pod.namespaces.network = Mode::Node;
    });
    check("sandbox_with_user_namespace_on_the_nodes_network", case.sandbox());
}

#[test]
fn container() {
    check("container", Case::new().container());
}

#[test]
fn container_with_default_seccomp() {
    let case = Case::with(|case| case.container.seccomp = Some(Profile::RuntimeDefault));
    check("container_with_default_seccomp", case.container());
}

#[test]
fn container_on_cgroup_v1() {
    let case = Case::with(|case| {
        case.node.unified_cgroups = false;
        case.node.cgroup_options = vec!["rw".into(), "nsdelegate".into()];
        case.pod.cgroup_parent = "/kubepods.slice/kubepods-pod0a1b.slice".into();
    });
    check("container_on_cgroup_v1", case.container());
}

#[test]
fn privileged() {
    let case = Case::with(|case| {
        case.pod.privileged = true;
        case.container.privileged = true;
        case.container.seccomp = Some(Profile::RuntimeDefault);
    });
    check("privileged", case.container());
}

#[test]
fn locked_down() {
    let case = Case::with(|case| {
        let container = &mut case.container;
        container.user.uid = 1000;
        container.user.gid = 2000;
        container.user.image_groups = vec![20];
        container.user.supplemental_groups = vec![3000, 20];
        container.readonly_rootfs = true;
        container.no_new_privileges = true;
        container.capabilities = Capabilities {
            drop: vec!["ALL".into()],
            add: vec!["NET_BIND_SERVICE".into()],
            ambient: vec!["NET_BIND_SERVICE".into()],
        };
        container.apparmor = Some(Profile::Localhost("localhost/tight".into()));
        container.selinux = Selinux { process: "u:r:t:s0".into(), mount: "u:o:t:s0".into() };
        case.node.apparmor = true;
    });
    check("locked_down", case.container());
}

#[test]
fn mounts() {
    let mount = |source: &str, place: &str| Mount {
        host_path: source.into(),
        container_path: place.into(),
        ..Mount::default()
    };
    let case = Case::with(|case| {
        case.container.mounts = vec![
            Mount { readonly: true, ..mount("/var/lib/deep", "/data/deep/er") },
            Mount {
                propagation: Propagation::HostToContainer,
                sharing: Some(Sharing::Slave),
                ..mount("/mnt/slave", "/slave")
            },
            Mount {
                propagation: Propagation::Bidirectional,
                sharing: Some(Sharing::Shared),
                ..mount("/mnt/shared", "/shared")
            },
            Mount { readonly: true, recursive_read_only: true, ..mount("/var/lib/rro", "/rro/") },
            mount("/var/lib/kubelet/etc-hosts", "/etc/hosts"),
            mount("/var/lib/data", "/data"),
            Mount { image: true, readonly: true, options: vec!["noexec".into()], ..mount("/run/image", "/image") },
        ];
        case.container.image_volumes = vec![mount("/run/volume", "/data"), mount("/run/volume2", "/cache")];
    });
    check("mounts", case.container());
}

#[test]
fn namespaces_of_others() {
    let case = Case::with(|case| {
        case.pod.namespaces.user = Some(userns());
        case.container.namespaces.user = Some(userns());
        case.container.namespaces.pid = Mode::Target;
        case.container.namespaces.ipc = Mode::Node;
        case.container.target_pid_namespace = Some("/proc/77/ns/pid".into());
    });
    check("namespaces_of_others", case.container());
}

#[test]
fn devices_and_limits() {
    let case = Case::with(|case| {
        case.container.devices = vec![Device { nodes: vec![fuse()], permissions: "rw".into() }];
        case.container.user.uid = 1000;
        case.policy.device_ownership_from_security_context = true;
        case.policy.disable_hugetlb_controller = false;
        case.container.resources = Some(Resources {
            cpuset_cpus: "0-2,7".into(),
            cpuset_mems: "0".into(),
            memory_limit: 1 << 20,
            memory_swap_limit: 2 << 20,
            hugepage_limits: vec![("2MB".into(), 4 << 20)],
            unified: [("memory.high".to_owned(), "900000".to_owned())].into(),
            oom_score_adj: -998,
            pids_limit: 100,
            ..Resources::default()
        });
        case.policy.restrict_oom_score_adj = true;
        case.node.oom_score_adj = -500;
    });
    check("devices_and_limits", case.container());
}

#[test]
fn base_spec_of_an_administrator() {
    let case = Case::with(|case| {
        case.handler.base_runtime_spec = Some(json!({
            "ociVersion": "1.0.2",
            "unknown": { "kept": true },
            "process": {
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096 }],
                "env": ["LANG=from the base"],
                "capabilities": { "bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL"] },
            },
            "mounts": [
                { "destination": "/run", "type": "tmpfs" },
                { "destination": "/extra", "type": "tmpfs", "source": "tmpfs" },
            ],
            "hooks": { "prestart": [{ "path": "/bin/true" }] },
            "linux": {
                "seccomp": { "defaultAction": "SCMP_ACT_LOG" },
                "newMember": 1,
                "namespaces": [{ "type": "mount" }, { "type": "time" }],
            },
        }));
    });
    check("base_spec_of_an_administrator", case.container());
}

#[test]
fn terminal() {
    let case = Case::with(|case| {
        case.container.tty = true;
        case.container.command = vec!["/bin/sh".into()];
        case.container.args = vec!["-i".into()];
        case.container.working_dir = "/root".into();
        case.container.env = vec![("LANG".into(), b"de".to_vec()), ("RAW".into(), b"a\xffb".to_vec())];
    });
    check("terminal", case.container());
}

#[test]
fn command_in_a_container() {
    let spec = Case::new().container().unwrap();
    let process = exec(spec.value(), &["ls".into(), "-l".into()], true);
    check("command_in_a_container", process.and_then(Spec::new));
}

#[test]
fn changed_limits() {
    let case = Case::new();
    let spec = case.container().unwrap();
    let limits = Resources { cpu_quota: -1, memory_limit: 128 << 20, ..Resources::default() };
    let changed = update(spec.value(), &limits, &case.node, &case.policy).unwrap();
    assert_eq!(changed.get("/process"), spec.get("/process"));
    assert_eq!(changed.get("/mounts"), spec.get("/mounts"));
    check("changed_limits", Spec::new(changed.resources().cloned().unwrap_or(Value::Null)));
}
