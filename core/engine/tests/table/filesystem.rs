//! `root`, `mounts`, hidden and read-only paths, devices.

use std::fs;

use serde_json::{Value, json};

use super::{Case, Expect};

/// The mount without what differs from one run to the next.
const MNT: &str = "grep -E ' /mnt[ /]' /proc/self/mountinfo | sed -E 's/^[0-9]+ [0-9]+ [0-9:]+ //; s/:[0-9]+//g; s#/[^ ]*/case-[0-9]+#@case@#g; s#^/[^ ]* /mnt#@ /mnt#'";

pub fn cases() -> Vec<Case> {
    let mut cases = attributes();
    cases.extend(mounts());
    cases.extend(paths());
    cases.extend(devices());
    cases.extend(root());
    cases
}

fn add(mount: Value) -> (&'static str, Value) {
    ("/mounts/-", mount)
}

fn attributes() -> Vec<Case> {
    let mut cases = Vec::new();
    for option in [
        "ro",
        "rw",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "nodiratime",
        "relatime",
        "strictatime",
        "sync",
        "dirsync",
        "lazytime",
        "nosymfollow",
    ] {
        let tmpfs = json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [option]});
        cases.push(Case::new(format!("tmpfs {option}"), &[add(tmpfs)], MNT));
        if !matches!(option, "sync" | "dirsync" | "lazytime") {
            let bind = json!({"destination": "/mnt", "type": "bind", "source": "@bundle@/rootfs/data", "options": ["bind", option]});
            cases.push(Case::new(format!("bind {option}"), &[add(bind)], &format!("{MNT}; cat /mnt/file")));
        }
    }
    for option in
        ["rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rrelatime", "rstrictatime", "rnodiratime", "rnosymfollow"]
    {
        let bind = json!({"destination": "/mnt", "type": "bind", "source": "@bundle@/rootfs/data", "options": ["rbind", option]});
        cases.push(Case::new(format!("bind {option}"), &[add(bind)], &format!("{MNT}; cat /mnt/file")));
    }
    for option in ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"] {
        let tmpfs = json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [option]});
        cases.push(Case::new(format!("tmpfs {option}"), &[add(tmpfs)], MNT));
        let bind = json!({"destination": "/mnt", "type": "bind", "source": "@bundle@/rootfs/data", "options": ["rbind", option]});
        cases.push(Case::new(format!("bind {option}"), &[add(bind)], MNT));
    }
    cases
}

fn mounts() -> Vec<Case> {
    let bind = |source: &str, options: Value| json!({"destination": "/mnt", "type": "bind", "source": source, "options": options});
    vec![
        Case::new("tmpfs with options", &[add(json!({"destination": "/mnt", "type": "tmpfs", "source": "me", "options": ["size=1m", "mode=700", "uid=5"]}))], &format!("{MNT}; stat -c %a:%u /mnt")),
        Case::new("tmpfs takes the mode of what it covers", &[add(json!({"destination": "/closed", "type": "tmpfs", "source": "tmpfs"}))], "stat -c %a /closed")
            .prepare(|bundle| {
                use std::os::unix::fs::PermissionsExt as _;
                let dir = bundle.join("rootfs/closed");
                fs::create_dir(&dir).unwrap();
                fs::set_permissions(dir, fs::Permissions::from_mode(0o1711)).unwrap();
            }),
        Case::new("a target that is made", &[add(json!({"destination": "/a/b/c", "type": "tmpfs", "source": "tmpfs"}))], "stat -c %a /a /a/b; mount | grep /a/b/c"),
        Case::new("a target below a mount", &[
            add(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"})),
            add(json!({"destination": "/mnt/in", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]})),
        ], MNT),
        Case::new("a mount in a read-only tmpfs", &[
            add(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]})),
            add(json!({"destination": "/mnt/in", "type": "tmpfs", "source": "tmpfs"})),
        ], MNT),
        Case::new("mqueue", &[add(json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}))], "mount | grep mqueue"),
        Case::new("shm", &[add(json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}))], "mount | grep shm; stat -c %a /dev/shm"),
        Case::new("a file", &[add(json!({"destination": "/etc/hosts", "type": "bind", "source": "@bundle@/rootfs/data/file", "options": ["bind", "ro"]}))], "cat /etc/hosts; echo x >/etc/hosts"),
        Case::new("a file on a file that is made", &[add(json!({"destination": "/new/file", "type": "bind", "source": "@bundle@/rootfs/data/file", "options": ["bind"]}))], "cat /new/file"),
        Case::new("bind without the option", &[add(json!({"destination": "/mnt", "type": "bind", "source": "@bundle@/rootfs/data"}))], "cat /mnt/file")
            .expect(Expect::Refused("mounts[5].options")),
        Case::new("type none", &[add(json!({"destination": "/mnt", "type": "none", "source": "@bundle@/rootfs/data", "options": ["rbind"]}))], "cat /mnt/file"),
        Case::new("no type", &[add(json!({"destination": "/mnt", "source": "@bundle@/rootfs/data", "options": ["bind"]}))], "cat /mnt/file"),
        Case::new("a source in the bundle", &[add(bind("rootfs/data", json!(["bind"])))], "cat /mnt/file"),
        Case::new("a source that is a link", &[add(bind("@bundle@/link", json!(["bind"])))], "cat /mnt/file")
            .prepare(|bundle| std::os::unix::fs::symlink("rootfs/data", bundle.join("link")).unwrap()),
        Case::new("a target that is a link", &[add(json!({"destination": "/data/dirlink", "type": "tmpfs", "source": "tmpfs"}))], "mount | grep -c '/data/sub '"),
        Case::new("a target behind a link that leads out", &[add(json!({"destination": "/out/x", "type": "bind", "source": "@bundle@/rootfs/data", "options": ["bind"]}))], "cat /out/x/file; ls /")
            .prepare(|bundle| std::os::unix::fs::symlink("../../../../../..", bundle.join("rootfs/out")).unwrap()),
        Case::new("a target behind a dangling link", &[add(json!({"destination": "/var/run/x", "type": "tmpfs", "source": "tmpfs"}))], "mount | grep -c ' /run/x '")
            .prepare(|bundle| {
                fs::create_dir(bundle.join("rootfs/var")).unwrap();
                std::os::unix::fs::symlink("/run", bundle.join("rootfs/var/run")).unwrap();
            }),
        Case::new("the last word on ro", &[add(bind("@bundle@/rootfs/data", json!(["bind", "ro", "rw"])))], MNT),
        Case::new("over cpuinfo", &[add(json!({"destination": "/proc/cpuinfo", "type": "bind", "source": "@bundle@/rootfs/data/file", "options": ["bind"]}))], "cat /proc/cpuinfo"),
        Case::new("proc with options", &[("/mounts/0/options", json!(["nosuid", "noexec", "nodev", "hidepid=2"]))], "mount | grep ' /proc '"),
        Case::new("sysfs read-write", &[("/mounts/3/options", json!(["nosuid"]))], "mount | grep ' /sys '"),
        Case::new("cgroups", &[], "mount | grep ' /sys/fs/cgroup/' | sort; cat /proc/self/cgroup"),
        Case::new("cgroups without a namespace", &[("/linux/namespaces/5", json!({"type": "cgroup", "path": "/proc/self/ns/cgroup"}))], "ls /sys/fs/cgroup/memory | grep -c ."),
        Case::new("mount over proc", &[add(json!({"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}))], "true").expect(Expect::Refused("mounts[5].destination")),
        Case::new("a bind over proc's parts", &[add(json!({"destination": "/proc/1", "type": "bind", "source": "@bundle@/rootfs/data", "options": ["bind"]}))], "true").expect(Expect::Refused("mounts[5].destination")),
        Case::new("tmpfs on proc", &[("/mounts/0", json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}))], "true").expect(Expect::Refused("mounts[0].destination")),
        Case::new("proc on a link", &[], "true").expect(Expect::Refused("mounts[0]")).prepare(|bundle| {
            fs::remove_dir(bundle.join("rootfs/proc")).unwrap();
            std::os::unix::fs::symlink("/tmp", bundle.join("rootfs/proc")).unwrap();
        }),
        Case::new("a way into proc by a link", &[add(json!({"destination": "/data/in/sys", "type": "tmpfs", "source": "tmpfs"}))], "true")
            .expect(Expect::Refused("mounts[5]"))
            .prepare(|bundle| std::os::unix::fs::symlink("/proc", bundle.join("rootfs/data/in")).unwrap()),
        Case::new("tmpcopyup", &[add(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}))], "true").expect(Expect::OnlyOursRefuses("mounts[5].options")),
    ]
}

fn paths() -> Vec<Case> {
    let masked = |path: &str| ("/linux/maskedPaths", json!([path]));
    let readonly = |path: &str| ("/linux/readonlyPaths", json!([path]));
    let file = "ls -ld /data/file | cut -c1-10; cat /data/file; echo x >/data/file; ls /data/sub; touch /data/sub/x; cat /data/file";
    vec![
        Case::new("masked file", &[masked("/data/file")], file),
        Case::new("masked directory", &[masked("/data/sub")], file),
        Case::new("masked link to a file", &[masked("/data/link")], file),
        Case::new("masked link to a directory", &[masked("/data/dirlink")], file),
        Case::new("masked nothing", &[masked("/nothing/here")], file),
        Case::new("masked proc", &[masked("/proc/kcore")], "cat /proc/kcore | grep -c ."),
        Case::new("masked directory of proc", &[masked("/proc/irq")], "ls /proc/irq | grep -c ."),
        Case::new("masked behind a link that leads out", &[masked("/out/data/file")], "cat /data/file; ls /out")
            .prepare(|bundle| std::os::unix::fs::symlink("../../..", bundle.join("rootfs/out")).unwrap()),
        Case::new("read-only file", &[readonly("/data/file")], file),
        Case::new("read-only directory", &[readonly("/data/sub")], file),
        Case::new("read-only link", &[readonly("/data/dirlink")], file),
        Case::new("read-only nothing", &[readonly("/nothing")], file),
        Case::new(
            "read-only settings",
            &[readonly("/proc/sys")],
            "mount | grep /proc/sys; echo x >/proc/sys/kernel/domainname",
        ),
        Case::new("both", &[masked("/data/file"), readonly("/data")], "cat /data/file; touch /data/y"),
    ]
}

fn devices() -> Vec<Case> {
    let device = |device: Value| ("/linux/devices", json!([device]));
    let list = "ls -l /dev | sed -E 's/ +[A-Z][a-z]+ +[0-9]+ [0-9:]+ / /' | sort";
    vec![
        Case::new("devices", &[], list),
        Case::new(
            "use of devices",
            &[],
            "echo x >/dev/null; dd if=/dev/zero bs=5 count=1 2>/dev/null | grep -c .; echo x >/dev/full; head -c 8 /dev/urandom | wc -c",
        ),
        Case::new(
            "a device of another mode",
            &[device(
                json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4}),
            )],
            list,
        ),
        Case::new(
            "a device without a mode",
            &[device(json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}))],
            list,
        ),
        Case::new(
            "a block device",
            &[device(json!({"path": "/dev/blk", "type": "b", "major": 7, "minor": 9, "fileMode": 0o600}))],
            list,
        ),
        Case::new("a fifo", &[device(json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o622}))], list),
        Case::new(
            "a device elsewhere",
            &[device(json!({"path": "/some/where/zero", "type": "c", "major": 1, "minor": 5}))],
            "stat -c %a:%t:%T /some/where/zero",
        ),
        Case::new(
            "a default device of another owner",
            &[device(json!({"path": "/dev/tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o600, "uid": 7}))],
            list,
        ),
        Case::new(
            "forbidden device",
            &[],
            "mknod /dev/sda b 8 0 2>&1; dd if=/dev/sda count=1 2>&1 | grep -c permitted",
        ),
        Case::new(
            "allowed device",
            &[
                device(json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11})),
                (
                    "/linux/resources/devices",
                    json!([{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]),
                ),
            ],
            "exec 3</dev/kmsg && echo read; echo x >/dev/kmsg",
        ),
        Case::new(
            "all devices",
            &[("/linux/resources/devices", json!([{"allow": true, "access": "rwm"}]))],
            "cat /sys/fs/cgroup/devices/devices.list",
        ),
        Case::new(
            "device list",
            &[(
                "/linux/resources/devices",
                json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]),
            )],
            "sort /sys/fs/cgroup/devices/devices.list",
        ),
        Case::new("default device list", &[], "sort /sys/fs/cgroup/devices/devices.list"),
        Case::new(
            "something else in the device's place",
            &[("/mounts/1", json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}))],
            "true",
        )
        .expect(Expect::OnlyOursRefuses("linux.devices"))
        .prepare(|bundle| fs::write(bundle.join("rootfs/dev/null"), "").unwrap()),
    ]
}

fn root() -> Vec<Case> {
    let rootfs = "grep ' / / ' /proc/self/mountinfo | cut -d' ' -f7 | sed -E 's/:[0-9]+//'; grep -E '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ' /proc/self/mountinfo | sed -E 's/^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ //; s/:[0-9]+//g'; touch /x; ls /x";
    let mut cases = vec![
        Case::new("root", &[], rootfs),
        Case::new("read-only root", &[("/root/readonly", json!(true))], rootfs),
        Case::new("absolute root", &[("/root/path", json!("@bundle@/rootfs"))], "ls /"),
        Case::new("root by a link", &[("/root/path", json!("by"))], "ls /")
            .expect(Expect::Refused("root.path"))
            .prepare(|bundle| std::os::unix::fs::symlink("rootfs", bundle.join("by")).unwrap()),
        Case::new("nothing of the host", &[], "cut -d' ' -f5 /proc/self/mountinfo | grep -vE '^/(proc|dev|sys)'"),
    ];
    for propagation in ["private", "rprivate", "slave", "rslave", "shared", "rshared"] {
        cases.push(Case::new(
            format!("root propagation {propagation}"),
            &[("/linux/rootfsPropagation", json!(propagation))],
            rootfs,
        ));
    }
    cases
}
