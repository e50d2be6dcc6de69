//! One rule at a time: what a change of the input does to one member, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod fixture;

use fixture::{Case, fuse};
use kevel_cri_spec::{
    Device, GroupsPolicy, IdMapping, Mode, Mount, Profile, Propagation, Resources, Sharing, UserNamespace, exec,
    relabels, stop_signal, update, user_string,
};
use proptest::prelude::*;
use serde_json::{Value, json};

type Change = fn(&mut Case);

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).into()).collect()
}

/// What the container's spec has at a JSON pointer after a change; absent is null.
fn check(name: &str, change: Change, pointer: &str, expected: &Value) {
    let spec = Case::with(change).container().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(spec.get(pointer).unwrap_or(&Value::Null), expected, "{name}: {pointer}");
}

#[test]
fn arguments_come_from_the_request_or_the_image() {
    let cases: [(&str, Change, Value); 6] = [
        ("neither", |_| {}, json!(["/entry", "serve"])),
        ("command", |case| case.container.command = strings(&["sh"]), json!(["sh"])),
        ("args", |case| case.container.args = strings(&["x"]), json!(["/entry", "x"])),
        (
            "both",
            |case| {
                case.container.command = strings(&["sh"]);
                case.container.args = strings(&["x"]);
            },
            json!(["sh", "x"]),
        ),
        ("no entrypoint", |case| case.image.entrypoint = vec![], json!(["serve"])),
        ("empty entrypoint", |case| case.image.entrypoint = strings(&[""]), json!(["serve"])),
    ];
    for (name, change, expected) in cases {
        check(name, change, "/process/args", &expected);
    }
}

#[test]
fn later_variables_replace_earlier_ones_in_place() {
    let cases: [(&str, Change, Value); 4] = [
        ("image", |_| {}, json!(["PATH=/usr/bin", "HOSTNAME=web-0", "LANG=C"])),
        (
            "default path",
            |case| case.image.env = vec![],
            json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=web-0"]),
        ),
        (
            "removed and replaced",
            |case| {
                case.pod.hostname = String::new();
                case.image.env = strings(&["PATH", "A=1", "TERM=x"]);
                case.container.tty = true;
                case.container.env = vec![("A".into(), b"2=3".to_vec()), ("B".into(), vec![])];
            },
            json!(["TERM=x", "HOSTNAME=node-a", "A=2=3", "B="]),
        ),
        (
            "bytes",
            |case| {
                case.image.env = vec![];
                case.container.env = vec![("PATH".into(), b"\xff".to_vec())];
            },
            json!(["PATH=\u{fffd}", "HOSTNAME=web-0"]),
        ),
    ];
    for (name, change, expected) in cases {
        check(name, change, "/process/env", &expected);
    }
}

#[test]
fn capabilities_are_added_then_dropped() {
    let default = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ];
    let without = |name: &str| default.iter().filter(|one| **one != name).collect::<Vec<_>>();
    let cases: [(&str, Change, Value); 7] = [
        ("default", |_| {}, json!(default)),
        (
            "any spelling",
            |case| {
                case.container.capabilities.drop = strings(&["ALL"]);
                case.container.capabilities.add = strings(&["net_admin", "CAP_SYS_TIME", "NET_ADMIN"]);
            },
            json!(["CAP_NET_ADMIN", "CAP_SYS_TIME"]),
        ),
        ("drop one", |case| case.container.capabilities.drop = strings(&["CAP_KILL"]), json!(without("CAP_KILL"))),
        ("drop unknown", |case| case.container.capabilities.drop = strings(&["FOO"]), json!(default)),
        (
            "all but one",
            |case| {
                case.container.capabilities.add = strings(&["all"]);
                case.container.capabilities.drop = strings(&["kill"]);
            },
            json!(["CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]),
        ),
        (
            "drop wins",
            |case| {
                case.container.capabilities.add = strings(&["KILL"]);
                case.container.capabilities.drop = strings(&["KILL"]);
            },
            json!(without("CAP_KILL")),
        ),
        (
            "one that only the node knows",
            |case| {
                case.node.capabilities.push("CAP_NEW".into());
                case.container.capabilities.drop = strings(&["ALL"]);
                case.container.capabilities.add = strings(&["NEW"]);
            },
            json!(["CAP_NEW"]),
        ),
    ];
    for (name, change, expected) in cases {
        for set in ["bounding", "effective", "permitted"] {
            check(name, change, &format!("/process/capabilities/{set}"), &expected);
        }
        check(name, change, "/process/capabilities/ambient", &Value::Null);
        check(name, change, "/process/capabilities/inheritable", &Value::Null);
    }
}

#[test]
fn groups_follow_the_policy() {
    let cases: [(&str, Change, Value); 3] = [
        ("root", |_| {}, json!([0])),
        (
            "merge",
            |case| {
                case.container.user.gid = 5;
                case.container.user.image_groups = vec![9, 5];
                case.container.user.supplemental_groups = vec![7, 9];
            },
            json!([5, 7, 9]),
        ),
        (
            "strict",
            |case| {
                case.container.user.image_groups = vec![9];
                case.container.user.supplemental_groups = vec![7];
                case.container.user.groups_policy = GroupsPolicy::Strict;
            },
            json!([0, 7]),
        ),
    ];
    for (name, change, expected) in cases {
        check(name, change, "/process/user/additionalGids", &expected);
    }
}

#[test]
fn members_follow_the_request() {
    let cases: [(&str, Change, &str, Value); 17] = [
        ("no masks", |case| case.container.masked_paths = vec![], "/linux/maskedPaths", json!(null)),
        ("masks", |_| {}, "/linux/maskedPaths", json!(["/proc/kcore"])),
        ("base's masks", |case| case.policy.disable_proc_mount = true, "/linux/maskedPaths/10", json!("/proc/scsi")),
        ("working directory", |_| {}, "/process/cwd", json!("/srv")),
        ("no directory", |case| case.image.working_dir = String::new(), "/process/cwd", json!("/")),
        ("swap off", |case| case.node.swap_controller = false, "/linux/resources/memory/swap", json!(null)),
        ("no swap", |_| {}, "/linux/resources/memory/swap", json!(64 << 20)),
        ("no limits", |case| case.container.resources = None, "/process/oomScoreAdj", json!(null)),
        ("cgroup", |_| {}, "/linux/cgroupsPath", json!("/kubepods/burstable/pod0a1b/ctr1")),
        (
            "slice",
            |case| case.pod.cgroup_parent = "/a.slice/a-b.slice/".into(),
            "/linux/cgroupsPath",
            json!("a-b.slice:cri-containerd:ctr1"),
        ),
        ("no parent", |case| case.pod.cgroup_parent = String::new(), "/linux/cgroupsPath", json!("/k8s.io/ctr1")),
        ("own pids", |case| case.container.namespaces.pid = Mode::Container, "/linux/namespaces/0/path", json!(null)),
        ("pod pids", |_| {}, "/linux/namespaces/0/path", json!("/proc/4242/ns/pid")),
        (
            "hidden annotations",
            |case| {
                case.container.annotations.insert("a.b".into(), "c".into());
            },
            "/annotations/a.b",
            json!(null),
        ),
        (
            "passed annotations",
            |case| {
                case.container.annotations.insert("a.b".into(), "c".into());
                case.handler.container_annotations = strings(&["a.*"]);
            },
            "/annotations/a.b",
            json!("c"),
        ),
        (
            "apparmor",
            |case| {
                case.node.apparmor = true;
                case.node.apparmor_default = Some("kevel".into());
            },
            "/process/apparmorProfile",
            json!("kevel"),
        ),
        (
            "huge pages",
            |case| {
                case.container.resources.as_mut().unwrap().hugepage_limits = vec![("2MB".into(), 1)];
            },
            "/linux/resources/hugepageLimits",
            json!(null),
        ),
    ];
    for (name, change, pointer, expected) in cases {
        check(name, change, pointer, &expected);
    }
}

#[test]
fn a_users_annotation_cannot_pose_as_ours() {
    let case = Case::with(|case| {
        case.container.annotations.insert("io.kubernetes.cri.sandbox-id".into(), "forged".into());
        case.handler.container_annotations = strings(&["*", "*/*"]);
    });
    assert_eq!(case.container().unwrap().annotation("io.kubernetes.cri.sandbox-id"), Some("pod1"));
}

#[test]
fn privileged_containers_get_what_the_handler_lets_through() {
    let case = |without: bool, allowed: bool| {
        let case = Case::with(|case| {
            case.pod.privileged = true;
            case.container.privileged = true;
            case.container.devices = vec![Device { nodes: vec![fuse()], permissions: "r".into() }];
            case.handler.privileged_without_host_devices = without;
            case.handler.privileged_without_host_devices_all_devices_allowed = allowed;
        });
        let spec = case.container().unwrap();
        let devices = spec.get("/linux/devices").unwrap().as_array().unwrap().len();
        (devices, spec.get("/linux/resources/devices/0/allow") == Some(&json!(true)))
    };
    assert_eq!(case(false, false), (1, true), "the same device once");
    assert_eq!(case(true, false), (1, false));
    assert_eq!(case(true, true), (1, true));
}

#[test]
fn mounts_never_hide_each_other() {
    let case = Case::with(|case| {
        for place in ["/a/b/c", "/dev", "/a", "/a/b", "/etc/../etc/hosts"] {
            case.container.mounts.push(Mount {
                container_path: place.into(),
                host_path: "/x".into(),
                ..Mount::default()
            });
        }
    });
    let spec = case.container().unwrap();
    let places: Vec<&str> =
        spec.get("/mounts").unwrap().as_array().unwrap().iter().filter_map(|one| one["destination"].as_str()).collect();
    assert_eq!(
        places,
        [
            "/proc",
            "/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/a",
            "/a/b",
            "/etc/../etc/hosts",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/dev/shm",
            "/a/b/c",
        ]
    );
}

#[test]
fn relabelling_leaves_the_nodes_shm_alone() {
    let mut case = Case::with(|case| {
        case.container.mounts = vec![
            Mount { host_path: "/yes".into(), selinux_relabel: true, ..Mount::default() },
            Mount { host_path: "/no".into(), ..Mount::default() },
        ];
    });
    let files = ["hostname", "hosts", "resolv.conf", "shm"].map(|name| format!("/run/kevel/pod1/{name}"));
    assert_eq!(relabels(&case.container, &case.paths), [&files[..], &["/yes".into()]].concat());
    case.container.namespaces.ipc = Mode::Node;
    assert_eq!(relabels(&case.container, &case.paths), [&files[..3], &["/yes".into()]].concat());
}

#[test]
fn capabilities_open_system_calls() {
    let allowed = |names: &[&str], call: &str| {
        let mut case = Case::with(|case| case.container.seccomp = Some(Profile::RuntimeDefault));
        case.container.capabilities.add = strings(names);
        let spec = case.container().unwrap();
        let rules = spec.get("/linux/seccomp/syscalls").unwrap().as_array().unwrap();
        rules.iter().any(|rule| {
            let named = rule["names"].as_array().unwrap().iter().any(|name| name == call);
            named && rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null()
        })
    };
    for (capability, call) in [
        ("SYS_ADMIN", "mount"),
        ("SYS_ADMIN", "clone3"),
        ("SYS_TIME", "clock_settime"),
        ("BPF", "bpf"),
        ("SYS_MODULE", "init_module"),
        ("SYSLOG", "syslog"),
        ("DAC_READ_SEARCH", "open_by_handle_at"),
    ] {
        assert!(!allowed(&[], call), "{call}");
        assert!(allowed(&[capability], call), "{call} with {capability}");
    }
    assert!(allowed(&[], "openat2") && allowed(&[], "chroot") && !allowed(&[], "socket"));
}

#[test]
fn users_are_spelt_for_the_look_up() {
    let cases = [
        ("", None, None, "img:grp", "img:grp"),
        ("", Some(1000), None, "img", "1000"),
        ("bob", Some(1000), None, "img", "bob"),
        ("bob", None, Some(5), "", "bob:5"),
        ("", Some(0), Some(0), "img", "0:0"),
        ("", None, None, "", ""),
    ];
    for (name, uid, gid, image, expected) in cases {
        assert_eq!(user_string(name, uid, gid, image).unwrap(), expected);
    }
    for (name, uid, gid, field) in [
        ("", None, Some(5), "run_as_group"),
        ("", Some(-1), None, "run_as_user"),
        ("a:b", None, None, "run_as_username"),
        ("a", None, Some(1 << 32), "run_as_group"),
    ] {
        assert!(user_string(name, uid, gid, "img").unwrap_err().to_string().starts_with(field));
    }
}

fn mount(change: impl FnOnce(&mut Mount)) -> Vec<Mount> {
    let mut mount = Mount { host_path: "/x".into(), container_path: "/y".into(), ..Mount::default() };
    change(&mut mount);
    vec![mount]
}

fn userns(ranges: &[(u32, u32, u32)]) -> UserNamespace {
    let range = |&(container_id, host_id, length): &_| IdMapping { container_id, host_id, length };
    let uids: Vec<IdMapping> = ranges.iter().map(range).collect();
    UserNamespace { mode: Mode::Pod, gids: uids.clone(), uids }
}

fn both(case: &mut Case, user: UserNamespace) {
    case.pod.namespaces.user = Some(user.clone());
    case.container.namespaces.user = Some(user);
}

fn limits(case: &mut Case) -> &mut Resources {
    case.container.resources.as_mut().unwrap()
}

#[test]
fn bad_containers_are_refused_by_field() {
    let cases: [(&str, Change); 44] = [
        ("command", |case| case.image = kevel_cri_spec::ImageConfig::default()),
        ("command[0]", |case| case.container.command = strings(&["a\0"])),
        ("args[1]", |case| case.container.args = strings(&["a", "\0"])),
        ("working_dir", |case| case.container.working_dir = "here".into()),
        ("image config WorkingDir", |case| case.image.working_dir = "here".into()),
        ("envs[0].key", |case| case.container.env = vec![(String::new(), vec![])]),
        ("envs[0].key", |case| case.container.env = vec![("A=B".into(), vec![])]),
        ("envs[0].value", |case| case.container.env = vec![("A".into(), vec![0])]),
        ("security_context.privileged", |case| case.container.privileged = true),
        ("run_as_user", |case| case.container.user.uid = -1),
        ("run_as_user", |case| case.container.user.uid = i64::from(u32::MAX)),
        ("run_as_group", |case| case.container.user.gid = 1 << 40),
        ("supplemental_groups[0]", |case| case.container.user.supplemental_groups = vec![-5]),
        ("capabilities.add_capabilities[0]", |case| case.container.capabilities.add = strings(&["FLY"])),
        ("capabilities.add_ambient_capabilities[0]", |case| case.container.capabilities.ambient = strings(&[""])),
        ("mounts[0].container_path", |case| case.container.mounts = mount(|mount| mount.container_path = "y".into())),
        ("mounts[0].container_path", |case| case.container.mounts = mount(|one| one.container_path = "/a/..".into())),
        ("mounts[0].host_path", |case| case.container.mounts = mount(|mount| mount.host_path = String::new())),
        ("mounts[0].readonly", |case| case.container.mounts = mount(|mount| mount.image = true)),
        ("mounts[0].mount_options", |case| case.container.mounts = mount(|one| one.options = strings(&["rw"]))),
        ("mounts[0].mount_options", |case| case.container.mounts = mount(|one| one.options = strings(&["dev"]))),
        ("mounts[0].recursive_read_only", |case| {
            case.container.mounts = mount(|mount| mount.recursive_read_only = true);
        }),
        ("mounts[0].recursive_read_only", |case| {
            case.container.mounts = mount(|mount| {
                (mount.readonly, mount.recursive_read_only) = (true, true);
                mount.propagation = Propagation::HostToContainer;
            });
        }),
        ("mounts[0].recursive_read_only: RROUnsupported", |case| {
            case.handler.recursive_read_only_mounts = false;
            case.container.mounts = mount(|mount| (mount.readonly, mount.recursive_read_only) = (true, true));
        }),
        ("mounts[0].propagation", |case| {
            case.container.mounts = mount(|mount| {
                (mount.propagation, mount.sharing) = (Propagation::Bidirectional, Some(Sharing::Slave));
            });
        }),
        ("mounts[0].propagation", |case| {
            case.container.mounts = mount(|mount| {
                (mount.propagation, mount.sharing) = (Propagation::HostToContainer, Some(Sharing::Private));
            });
        }),
        ("devices[0].permissions", |case| {
            case.container.devices = vec![Device { nodes: vec![fuse()], permissions: "rx".into() }];
        }),
        ("devices[0].permissions", |case| case.container.devices = vec![Device::default()]),
        ("resources.cpu_shares", |case| limits(case).cpu_shares = -1),
        ("resources.cpu_period", |case| limits(case).cpu_period = -1),
        ("resources.cpuset_cpus", |case| limits(case).cpuset_cpus = "3-1".into()),
        ("resources.cpuset_mems", |case| limits(case).cpuset_mems = "all".into()),
        ("resources.oom_score_adj", |case| limits(case).oom_score_adj = 1001),
        ("resources.memory_swap_limit_in_bytes", |case| limits(case).memory_swap_limit = 1),
        ("resources.hugepage_limits[0].page_size", |case| limits(case).hugepage_limits = vec![("big".into(), 1)]),
        ("resources.hugepage_limits", |case| {
            limits(case).hugepage_limits = vec![("2MB".into(), 1)];
            case.node.hugetlb_controller = false;
            case.policy.disable_hugetlb_controller = false;
            case.policy.tolerate_missing_hugetlb_controller = false;
        }),
        ("resources.unified[\"../x\"]", |case| limits(case).unified = [("../x".into(), "1".into())].into()),
        ("resources.unified", |case| {
            limits(case).unified = [("memory.high".into(), "1".into())].into();
            case.node.unified_cgroups = false;
        }),
        ("linux.cgroup_parent", |case| case.pod.cgroup_parent = "/a/../../b".into()),
        ("namespace_options.network", |case| case.container.namespaces.network = Mode::Container),
        ("namespace_options.target_id", |case| case.container.namespaces.pid = Mode::Target),
        ("namespace_options.userns_options", |case| case.pod.namespaces.user = Some(userns(&[(0, 1, 2)]))),
        ("security_context.seccomp", |case| {
            case.container.seccomp = Some(Profile::RuntimeDefault);
            case.node.seccomp = false;
        }),
        ("security_context.apparmor", |case| case.container.apparmor = Some(Profile::RuntimeDefault)),
    ];
    for (index, (field, change)) in cases.into_iter().enumerate() {
        let error = Case::with(change).container().expect_err(&format!("case {index}: {field}")).to_string();
        assert!(error.starts_with(field), "case {index}: {error} does not start with {field}");
    }
}

#[test]
fn bad_user_namespaces_are_refused() {
    let ranges: [&[(u32, u32, u32)]; 5] =
        [&[], &[(0, 1, 1), (1, 2, 1)], &[(0, 1, 0)], &[(5, 1, 10)], &[(0, u32::MAX, 2)]];
    for range in ranges {
        let case = Case::with(|case| both(case, userns(range)));
        for error in [case.container().unwrap_err(), case.sandbox().unwrap_err()] {
            assert!(error.to_string().starts_with("namespace_options.userns_options.uids"), "{range:?}: {error}");
        }
    }
    for mode in [Mode::Container, Mode::Target, Mode::Node] {
        let user = UserNamespace { mode, ..userns(&[(0, 1, 1)]) };
        let error = Case::with(|case| both(case, user)).sandbox().unwrap_err();
        assert!(error.to_string().starts_with("namespace_options.userns_options"), "{error}");
    }
}

#[test]
fn bad_sandboxes_are_refused_by_field() {
    let cases: [(&str, Change); 11] = [
        ("sandbox image", |case| case.image = kevel_cri_spec::ImageConfig::default()),
        ("hostname", |case| case.pod.hostname = "x".repeat(65)),
        ("hostname", |case| case.pod.hostname = "a\nb".into()),
        ("namespace_options.pid", |case| case.pod.namespaces.pid = Mode::Target),
        ("namespace_options.ipc", |case| case.pod.namespaces.ipc = Mode::Target),
        ("linux.sysctls[\"\"]", |case| case.pod.sysctls = [(String::new(), String::new())].into()),
        ("linux.sysctls[\"net..x\"]", |case| case.pod.sysctls = [("net..x".into(), String::new())].into()),
        ("linux.sysctls[\"a b\"]", |case| case.pod.sysctls = [("a b".into(), String::new())].into()),
        ("linux.sysctls[\"net/core/x\"]", |case| {
            case.pod.sysctls = [("net/core/x".into(), "1".into())].into();
            case.pod.namespaces.network = Mode::Node;
        }),
        ("linux.sysctls[\"kernel.shmmax\"]", |case| {
            case.pod.sysctls = [("kernel.shmmax".into(), "1".into())].into();
            case.pod.namespaces.ipc = Mode::Node;
        }),
        ("linux.cgroup_parent", |case| case.pod.cgroup_parent = "a\0".into()),
    ];
    for (index, (field, change)) in cases.into_iter().enumerate() {
        let error = Case::with(change).sandbox().expect_err(&format!("case {index}: {field}")).to_string();
        assert!(error.starts_with(field), "case {index}: {error} does not start with {field}");
    }
}

#[test]
fn bad_profiles_and_base_specs_are_refused() {
    for profile in [
        json!(1),
        json!({}),
        json!({ "defaultAction": "allow" }),
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": 5 }),
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "name": "old", "action": "SCMP_ACT_ALLOW" }] }),
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": [1], "action": "SCMP_ACT_ALLOW" }] }),
    ] {
        let case = Case::with(|case| case.container.seccomp = Some(Profile::Localhost(profile)));
        let error = case.container().unwrap_err().to_string();
        assert!(error.starts_with("security_context.seccomp.localhost_ref: "), "{error}");
    }
    for (base, expected) in [
        (json!([]), "runtime spec: / is not an object"),
        (json!({ "linux": 5 }), "runtime spec: linux is not an object"),
        (json!({ "mounts": {} }), "runtime spec: mounts is not an array"),
        (json!({ "process": { "env": 1 } }), "runtime spec: process/env is not an array"),
    ] {
        let case = Case::with(|case| case.handler.base_runtime_spec = Some(base));
        assert_eq!(case.container().unwrap_err().to_string(), expected);
    }
}

#[test]
fn bad_commands_and_updates_are_refused() {
    let case = Case::new();
    let spec = case.container().unwrap();
    assert_eq!(exec(spec.value(), &[], false).unwrap_err().to_string(), "cmd: no command");
    assert!(exec(spec.value(), &strings(&["\0"]), false).unwrap_err().to_string().starts_with("cmd[0]: "));
    assert_eq!(
        exec(&json!({}), &strings(&["ls"]), false).unwrap_err().to_string(),
        "runtime spec: process is not an object"
    );
    let limits = Resources { cpu_shares: -1, ..Resources::default() };
    assert!(update(spec.value(), &limits, &case.node, &case.policy).is_err());
}

#[test]
fn limits_can_be_changed_again_and_again() {
    let mut case = Case::new();
    case.policy.disable_hugetlb_controller = false;
    let mut spec = case.container().unwrap();
    for bytes in [1, 2, 3] {
        let limits = Resources { hugepage_limits: vec![("2MB".into(), bytes)], ..Resources::default() };
        spec = update(spec.value(), &limits, &case.node, &case.policy).unwrap();
    }
    assert_eq!(spec.get("/linux/resources/hugepageLimits"), Some(&json!([{ "pageSize": "2MB", "limit": 3 }])));
    assert_eq!(spec.get("/linux/resources/cpu/shares"), Some(&json!(512)), "what was not said stays");
}

proptest! {
    #[test]
    fn no_text_makes_a_panic(text in any::<String>(), number in any::<i64>()) {
        let _ = stop_signal(&text);
        let _ = user_string(&text, Some(number), Some(number), &text);
        let case = Case::with(|case| {
            case.container.args = vec![text.clone()];
            case.container.env = vec![(text.clone(), text.clone().into_bytes())];
            case.container.annotations.insert(text.clone(), text.clone());
            case.handler.container_annotations = vec![text.clone()];
            case.container.mounts = mount(|mount| mount.container_path = format!("/{text}"));
            limits(case).cpuset_cpus = text.clone();
            limits(case).memory_limit = number;
            case.pod.cgroup_parent = text.clone();
            case.pod.hostname = text.clone();
            case.container.user.uid = number;
        });
        let _ = case.container();
        let _ = case.sandbox();
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(text in "[a-z]{0,8}", number in 0i64..1000) {
        let make = || Case::with(|case| {
            case.container.env = vec![("X".into(), text.clone().into_bytes())];
            case.container.user.supplemental_groups = vec![number, 3, number + 1];
            case.container.capabilities.add = strings(&["ALL", "NET_RAW", "SYS_TIME"]);
        }).container().unwrap().to_vec();
        prop_assert_eq!(make(), make());
    }
}
