//! Namespaces: which are new, which are joined, and in what order.

use std::{
    fs,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::{Plan, text};
use crate::{
    child::Op,
    error::{Error, Result},
};

/// Whose user namespace the process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Host,
    New,
    Joined,
}

/// The namespaces of a container.
pub(crate) struct Namespaces {
    new: u64,
    joined: Vec<(LinuxNamespaceType, OwnedFd, String)>,
}

/// In this order they are joined: the user namespace gives the rights to the others.
const ORDER: [LinuxNamespaceType; 7] = [
    LinuxNamespaceType::User,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::Mount,
];

fn flag(kind: LinuxNamespaceType) -> u64 {
    kind as u64
}

impl Namespaces {
    pub(crate) fn new(linux: &Linux) -> Result<Self> {
        let mut found = Self { new: 0, joined: Vec::new() };
        for (at, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let field = format!("linux.namespaces[{at}]");
            let kind = namespace.typ();
            if found.has(kind) {
                return Err(Error::invalid(format!("{field}.type"), format!("a second namespace of type {kind}")));
            }
            match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
                None => found.new |= flag(kind),
                Some(path) => {
                    let field = format!("{field}.path");
                    if !path.is_absolute() {
                        return Err(Error::invalid(field, "is not absolute"));
                    }
                    let file = fs::File::open(path)
                        .map_err(|err| Error::failed(&*field, format!("open {}", path.display()), err))?;
                    found.joined.push((kind, file.into(), field));
                }
            }
        }
        Ok(found)
    }

    fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.new & flag(kind) != 0 || self.joined.iter().any(|(joined, ..)| *joined == kind)
    }

    fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        self.new & flag(kind) != 0
    }

    pub(crate) fn user(&self) -> User {
        if self.is_new(LinuxNamespaceType::User) {
            User::New
        } else if self.has(LinuxNamespaceType::User) {
            User::Joined
        } else {
            User::Host
        }
    }

    /// Fields that make sense only in namespaces of the container's own.
    pub(crate) fn check(&self, spec: &Spec, linux: &Linux) -> Result<()> {
        use LinuxNamespaceType as Type;
        if !self.is_new(Type::Mount) {
            let reason =
                if self.has(Type::Mount) { "a mount namespace of another" } else { "no mount namespace of its own" };
            return Err(Error::unsupported("linux.namespaces", reason));
        }
        for (name, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
            if value.as_ref().is_some_and(|value| !value.is_empty()) && !self.has(Type::Uts) {
                return Err(Error::invalid(name, "needs a uts namespace"));
            }
        }
        let maps = [(linux.uid_mappings(), "linux.uidMappings"), (linux.gid_mappings(), "linux.gidMappings")];
        for (map, field) in maps {
            let some = map.as_ref().is_some_and(|map| !map.is_empty());
            match self.user() {
                User::New if !some => return Err(Error::invalid(field, "a new user namespace needs a map")),
                User::Host if some => return Err(Error::invalid(field, "needs a user namespace")),
                _ => {}
            }
        }
        if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) && !self.is_new(Type::Time) {
            return Err(Error::invalid("linux.timeOffsets", "needs a new time namespace"));
        }
        for key in linux.sysctl().iter().flat_map(|sysctl| sysctl.keys()) {
            self.check_sysctl(key)?;
        }
        self.check_rest(linux)
    }

    fn check_rest(&self, linux: &Linux) -> Result<()> {
        if linux.intel_rdt().is_some() {
            return Err(Error::unsupported("linux.intelRdt", "resctrl"));
        }
        if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
            return Err(Error::unsupported("linux.netDevices", "moving network devices"));
        }
        if linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()) && !super::process::has_selinux() {
            return Err(Error::unsupported("linux.mountLabel", "SELinux is not enabled"));
        }
        Ok(())
    }

    /// A kernel setting that is not a namespace's own would be changed for the whole machine.
    fn check_sysctl(&self, key: &str) -> Result<()> {
        use LinuxNamespaceType as Type;
        const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
        let field = format!("linux.sysctl[{key:?}]");
        let path = sysctl_path(key, &field)?;
        let path = path.trim_start_matches("sys/");
        let needs = match path.split_once('/') {
            Some(("kernel", name)) if IPC.contains(&name) => Type::Ipc,
            Some(("fs", name)) if name.starts_with("mqueue/") => Type::Ipc,
            Some(("net", _)) => Type::Network,
            Some(("kernel", "domainname")) => Type::Uts,
            Some(("kernel", "hostname")) => return Err(Error::invalid(field, "is the field hostname's")),
            _ => return Err(Error::invalid(field, "is a setting of the whole machine")),
        };
        if self.has(needs) { Ok(()) } else { Err(Error::invalid(field, format!("needs a {needs} namespace"))) }
    }

    /// The steps that get the process into its namespaces.
    ///
    /// Usually one clone makes them all. Where a user namespace is joined, or a new one goes with others that are joined,
    /// the new ones must be made from inside it: then a first process goes in, and a second clone makes them.
    pub(crate) fn steps(mut self, plan: &mut Plan, linux: &Linux) -> Result<()> {
        let late = flag(LinuxNamespaceType::Cgroup) | flag(LinuxNamespaceType::Time);
        let user = self.user();
        if let Some(at) = self.joined.iter().position(|(kind, ..)| *kind == LinuxNamespaceType::Pid) {
            // Joined by the parent, for its next child.
            plan.pid_namespace = Some(self.joined.remove(at).1);
        }
        let staged = user == User::Joined || (user == User::New && !self.joined.is_empty());
        let now = self.new & !late;
        if !staged {
            plan.clone_flags = now;
        }
        // With a new user namespace the others are joined with the rights that are left behind.
        for kind in ORDER {
            if let Some(at) = self.joined.iter().position(|(joined, ..)| *joined == kind) {
                let (_, fd, field) = self.joined.remove(at);
                plan.program.push(field, Op::Setns { fd: fd.as_raw_fd(), flags: flag(kind) });
                plan.held.push(fd);
            }
        }
        match user {
            User::Host => {}
            User::Joined => plan.program.push("linux.namespaces", Op::BecomeRoot),
            User::New => {
                if staged {
                    plan.program.push("linux.namespaces", Op::Unshare(flag(LinuxNamespaceType::User)));
                }
                plan.program.push("linux.uidMappings", Op::Mapped);
            }
        }
        if staged {
            let rest = now & !flag(LinuxNamespaceType::User);
            plan.program.push("linux.namespaces", Op::Fork(rest));
        }
        // The root of a new cgroup namespace is where the process is by now.
        if self.new & late != 0 {
            plan.program.push("linux.namespaces", Op::Unshare(self.new & late));
        }
        time_offsets(plan, linux)?;
        if self.new & flag(LinuxNamespaceType::Network) != 0 {
            plan.program.push("linux.namespaces", Op::Loopback);
        }
        Ok(())
    }
}

/// Steps that get a process into the namespaces of another.
pub(super) fn join(plan: &mut Plan, pid: i32) -> Result<User> {
    let mut user = User::Host;
    let failed = |name: &str, err| Error::system(format!("open the {name} namespace of process {pid}"), err);
    let files = [
        ("user", "user"),
        ("cgroup", "cgroup"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("net", "net"),
        ("pid", "pid"),
        ("time", "time"),
        ("mnt", "mnt"),
    ];
    for (name, file) in files {
        let (own, other) = (format!("/proc/self/ns/{file}"), format!("/proc/{pid}/ns/{file}"));
        let other = match fs::File::open(&other) {
            Ok(file) => file,
            // A kernel without it.
            Err(err) if err.kind() == std::io::ErrorKind::NotFound && !std::path::Path::new(&own).exists() => continue,
            Err(err) => return Err(failed(name, err)),
        };
        let same = fs::metadata(&own)
            .and_then(|own| Ok(own.ino() == other.metadata()?.ino()))
            .map_err(|err| failed(name, err))?;
        if same {
            continue;
        }
        if name == "pid" {
            plan.pid_namespace = Some(other.into());
            continue;
        }
        plan.program.push("process", Op::Setns { fd: other.as_raw_fd(), flags: 0 });
        plan.held.push(other.into());
        if name == "user" {
            user = User::Joined;
        }
    }
    if user == User::Joined {
        // Not before the rights that come with it are needed, and not after the others are joined by them.
        let after =
            plan.program.steps.iter().position(|step| matches!(step.op, Op::Setns { .. })).map_or(0, |at| at + 1);
        plan.program.steps.insert(after, crate::child::Step { field: "process".into(), op: Op::BecomeRoot });
    }
    Ok(user)
}

fn time_offsets(plan: &mut Plan, linux: &Linux) -> Result<()> {
    let mut lines = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let field = format!("linux.timeOffsets.{clock}");
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::invalid(field, "only monotonic and boottime have offsets"));
        }
        lines.push_str(&format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
    }
    if !lines.is_empty() {
        plan.program.push("linux.timeOffsets", Op::TimeOffsets(lines.into_bytes()));
    }
    Ok(())
}

/// The file of a kernel setting, below `/proc`. With dots the parts are separated by dots, unless a slash comes first.
pub(super) fn sysctl_path(key: &str, field: &str) -> Result<String> {
    let dots = key.find(['.', '/']).is_none_or(|at| key[at..].starts_with('.'));
    let path: String = if dots {
        key.chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect()
    } else {
        key.to_owned()
    };
    if path.is_empty() || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::invalid(field, "is no name of a setting"));
    }
    text(&path, field)?;
    Ok(format!("sys/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let path = |key| sysctl_path(key, "f");
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), "sys/net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/conf/eth0.100/rp_filter").unwrap(), "sys/net/ipv4/conf/eth0.100/rp_filter");
        assert_eq!(path("net.ipv4.conf.eth0/100.rp_filter").unwrap(), "sys/net/ipv4/conf/eth0.100/rp_filter");
        for bad in ["", "net..x", "/etc/passwd", "net/../kernel/core_pattern", "a\0b"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }
}
