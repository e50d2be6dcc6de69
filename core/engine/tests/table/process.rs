//! `process`: who it is, what it may, what it runs.

use serde_json::json;

use super::{Case, Expect};

const STATUS: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp):' /proc/self/status; umask";

pub fn cases() -> Vec<Case> {
    let mut cases = basics();
    cases.extend(users());
    cases.extend(capabilities());
    cases.extend(limits());
    cases.extend(seccomp());
    cases
}

fn basics() -> Vec<Case> {
    vec![
        Case::new("plain", &[], "id; hostname; env | sort; pwd; cat /proc/self/cmdline; ls /proc/self/fd | grep -c ."),
        Case::new("exit code", &[], "exit 7"),
        // The first process of a PID namespace of its own could not kill itself.
        Case::new(
            "ended by a signal",
            &[("/linux/namespaces", json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]))],
            "kill -KILL $$; sleep 100",
        ),
        Case::new("path lookup", &[("/process/args", json!(["id", "-u"]))], ""),
        Case::new("relative program", &[("/process/args", json!(["bin/id", "-u"]))], ""),
        Case::new(
            "relative program elsewhere",
            &[("/process/args", json!(["./id", "-u"])), ("/process/cwd", json!("/bin"))],
            "",
        ),
        Case::new(
            "later of two variables",
            &[("/process/env", json!(["PATH=/bin", "A=1", "B=2", "A=3"]))],
            "env | sort",
        ),
        Case::new("empty value", &[("/process/env", json!(["PATH=/bin", "A="]))], "env | sort"),
        Case::new("value with equals sign", &[("/process/env", json!(["PATH=/bin", "A=b=c"]))], "env | sort"),
        Case::new("home given", &[("/process/env", json!(["PATH=/bin", "HOME=/x"]))], "echo $HOME"),
        Case::new("home empty", &[("/process/env", json!(["PATH=/bin", "HOME="]))], "echo $HOME"),
        Case::new("home of the user", &[("/process/user", json!({"uid": 1000, "gid": 1000}))], "echo $HOME"),
        Case::new("home of nobody", &[("/process/user", json!({"uid": 777, "gid": 0}))], "echo $HOME"),
        Case::new(
            "path without the program",
            &[("/process/env", json!(["PATH=/none"])), ("/process/args", json!(["id"]))],
            "",
        )
        .expect(Expect::Refused("process.args")),
        Case::new("no path", &[("/process/env", json!([])), ("/process/args", json!(["id"]))], "")
            .expect(Expect::Refused("process.args")),
        Case::new("cwd", &[("/process/cwd", json!("/data/sub"))], "pwd"),
        Case::new("cwd by a link", &[("/process/cwd", json!("/data/dirlink"))], "readlink /proc/self/cwd"),
        Case::new("cwd that is made", &[("/process/cwd", json!("/new/dir"))], "pwd; stat -c %a:%u /new/dir"),
        Case::new("oomScoreAdj", &[("/process/oomScoreAdj", json!(500))], "cat /proc/self/oom_score_adj"),
        Case::new("noNewPrivileges", &[("/process/noNewPrivileges", json!(true))], STATUS),
        Case::new(
            "ioPriority",
            &[("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}))],
            "ionice -p $$",
        ),
        Case::new(
            "ioPriority idle",
            &[("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}))],
            "ionice -p $$",
        ),
        Case::new(
            "scheduler",
            &[("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5}))],
            "cut -d' ' -f18,19,41 /proc/self/stat",
        ),
        Case::new(
            "scheduler idle",
            &[("/process/scheduler", json!({"policy": "SCHED_IDLE"}))],
            "cut -d' ' -f41 /proc/self/stat",
        ),
        Case::new("personality", &[("/linux/personality", json!({"domain": "LINUX32"}))], "uname -m"),
        Case::new("personality of 64 bits", &[("/linux/personality", json!({"domain": "LINUX"}))], "uname -m"),
        Case::new("session and group", &[], "cut -d' ' -f1,4,5,6 /proc/self/stat | grep -c '1 1 1'"),
        Case::new("signals", &[], "grep SigBlk /proc/self/status"),
        Case::new("annotations", &[("/annotations", json!({"a": "b"}))], "true"),
    ]
}

fn users() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, user) in [
        ("user", json!({"uid": 1000, "gid": 1000})),
        ("user without a name", json!({"uid": 12345, "gid": 54321})),
        ("root of another group", json!({"uid": 0, "gid": 5})),
        ("groups", json!({"uid": 1000, "gid": 1000, "additionalGids": [1, 2, 3000]})),
        ("groups of root", json!({"uid": 0, "gid": 0, "additionalGids": [10, 20]})),
        ("umask", json!({"uid": 0, "gid": 0, "umask": 0o077})),
        ("umask zero", json!({"uid": 0, "gid": 0, "umask": 0})),
    ] {
        cases.push(Case::new(format!("user: {name}"), &[("/process/user", user.clone())], STATUS));
        let files =
            "touch /tmp/x 2>/dev/null; stat -c %a:%u:%g /tmp/x 2>&1 | grep -v 'No such'; echo >/dev/null && echo wrote";
        cases.push(Case::new(format!("files of user: {name}"), &[("/process/user", user)], files));
    }
    cases.push(
        Case::new(
            "closed cwd of a user",
            &[("/process/user", json!({"uid": 1000, "gid": 1000})), ("/process/cwd", json!("/closed"))],
            "pwd",
        )
        .prepare(|bundle| {
            use std::os::unix::fs::PermissionsExt as _;
            let dir = bundle.join("rootfs/closed");
            std::fs::create_dir(&dir).unwrap();
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        }),
    );
    cases
}

const CAPABILITIES: [&str; 40] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

fn capabilities() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in CAPABILITIES {
        let one = json!([format!("CAP_{name}")]);
        let sets = json!({"bounding": one, "permitted": one, "effective": one, "inheritable": one, "ambient": one});
        let user = ("/process/user", json!({"uid": 1000, "gid": 1000}));
        cases.push(Case::new(format!("capability {name}"), &[("/process/capabilities", sets), user], STATUS));
    }
    let two = json!(["CAP_KILL", "CAP_CHOWN"]);
    for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        for (who, uid) in [("root", 0), ("user", 1000)] {
            let user = ("/process/user", json!({"uid": uid, "gid": uid}));
            let effective = set == "effective";
            let sets = if effective { json!({"permitted": two, "effective": two}) } else { json!({ set: two }) };
            let case = Case::new(
                format!("only {set} capabilities of {who}"),
                &[("/process/capabilities", sets), user],
                STATUS,
            );
            // Beyond the bounding set nothing can be inherited.
            let refused = set == "inheritable";
            cases.push(if refused { case.expect(Expect::Refused("process.capabilities")) } else { case });
        }
    }
    cases.push(Case::new("no capabilities", &[("/process/capabilities", json!(null))], STATUS));
    let unknown = json!({"bounding": ["CAP_KILL", "CAP_NEVER_HEARD"], "permitted": ["CAP_KILL"]});
    cases.push(Case::new("unknown capability", &[("/process/capabilities", unknown)], STATUS));
    cases
}

fn limits() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, soft, hard, word) in [
        ("NOFILE", 100_u64, 200_u64, "open files"),
        ("CORE", 0, 0, "core"),
        ("CPU", 1000, 2000, "cpu time"),
        ("FSIZE", 1_000_000, 2_000_000, "file size"),
        // Room for runc: its Go runtime gives up under a limit on memory that would do for the container.
        ("DATA", 1 << 40, 1 << 41, "data size"),
        ("STACK", 1_000_000, 8_000_000, "stack size"),
        ("MEMLOCK", 1000, 2000, "locked memory"),
        ("AS", 1 << 40, 1 << 41, "address space"),
        ("NPROC", 500, 600, "processes"),
        ("RSS", 1_000_000, 1_000_000, "resident set"),
        ("SIGPENDING", 10, 20, "pending signals"),
        ("MSGQUEUE", 1000, 2000, "msgqueue size"),
        ("LOCKS", 10, 20, "file locks"),
        ("RTTIME", 1000, 2000, "realtime timeout"),
    ] {
        let limit = json!([{"type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard}]);
        cases.push(Case::new(
            format!("limit {name}"),
            &[("/process/rlimits", limit)],
            &format!("grep -i '{word}' /proc/self/limits"),
        ));
    }
    let two = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]);
    cases.push(Case::new("two limits", &[("/process/rlimits", two)], "grep -iE 'core|open files' /proc/self/limits"));
    cases
}

fn seccomp() -> Vec<Case> {
    let mut cases = Vec::new();
    let tried = "mkdir /tmp/d; echo $?; touch /tmp/f; echo $?";
    for nnp in [false, true] {
        for (name, action) in [
            ("errno", json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 5})),
            ("errno by default", json!({"action": "SCMP_ACT_ERRNO"})),
            ("trap", json!({"action": "SCMP_ACT_TRAP"})),
            ("kill", json!({"action": "SCMP_ACT_KILL"})),
            ("kill process", json!({"action": "SCMP_ACT_KILL_PROCESS"})),
            ("log", json!({"action": "SCMP_ACT_LOG"})),
            ("allow", json!({"action": "SCMP_ACT_ALLOW"})),
            ("trace", json!({"action": "SCMP_ACT_TRACE"})),
        ] {
            let mut rule = action;
            rule["names"] = json!(["mkdir", "mkdirat"]);
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            let edits = [("/linux/seccomp", profile), ("/process/noNewPrivileges", json!(nnp))];
            cases.push(Case::new(
                format!("seccomp {name}, no new privileges {nnp}"),
                &edits,
                &format!("{tried}; {STATUS}"),
            ));
        }
    }
    let args = |op: &str, value: u64, two: u64| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9, "args": [{"index": 1, "value": value, "valueTwo": two, "op": op}]}]})
    };
    for (op, value, two) in [
        ("SCMP_CMP_EQ", 0, 0),
        ("SCMP_CMP_NE", 0, 0),
        ("SCMP_CMP_LT", 1, 0),
        ("SCMP_CMP_LE", 17, 0),
        ("SCMP_CMP_GT", 17, 0),
        ("SCMP_CMP_GE", 18, 0),
        ("SCMP_CMP_MASKED_EQ", 2, 2),
    ] {
        let script = "for s in 0 17 18 23 28; do kill -$s $$; echo $?; done";
        cases.push(Case::new(format!("seccomp {op}"), &[("/linux/seccomp", args(op, value, two))], script));
    }
    cases
}
