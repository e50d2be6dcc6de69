//! Capabilities: which a process has by default, and what adding and dropping means.

use std::collections::BTreeSet;

use crate::{
    document::Spec,
    error::{Result, invalid},
    input::{Capabilities, Node},
};

/// What every container has unless it drops it.
pub(crate) const DEFAULT: [&str; 14] = [
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

/// Every capability of Linux 6.18, in the order of its number; what the node's kernel knows beyond is known too.
const KNOWN: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE \
    SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL \
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

const SETS: [&str; 3] = ["bounding", "effective", "permitted"];

/// Applies a request: `ALL` first, then single ones, so that "all but one" and "only one" can be said; drops come last.
/// No capability is inheritable or ambient unless the request names it as ambient.
pub(crate) fn apply(spec: &mut Spec, request: &Capabilities, node: &Node) -> Result<()> {
    let add = names(&request.add, "capabilities.add_capabilities", node)?;
    let ambient = names(&request.ambient, "capabilities.add_ambient_capabilities", node)?;
    let dropped: Vec<String> = request.drop.iter().map(|name| canonical(name)).collect();
    for set in SETS {
        let mut held = current(spec, set)?;
        if add.contains("ALL") {
            held = node.capabilities.clone();
        }
        if dropped.iter().any(|name| name == "ALL") {
            held.clear();
        }
        for name in add.iter().chain(&ambient).filter(|name| *name != "ALL") {
            if !held.contains(name) {
                held.push(name.clone());
            }
        }
        held.retain(|name| !dropped.contains(name));
        spec.set(&format!("process/capabilities/{set}"), held)?;
    }
    let kept: Vec<String> = ambient.into_iter().filter(|name| !dropped.contains(name)).collect();
    for set in ["inheritable", "ambient"] {
        spec.remove(&format!("process/capabilities/{set}"));
        if !kept.is_empty() {
            spec.set(&format!("process/capabilities/{set}"), kept.clone())?;
        }
    }
    Ok(())
}

/// All that the node has, for a privileged container.
pub(crate) fn all(spec: &mut Spec, node: &Node) -> Result<()> {
    for set in SETS {
        spec.set(&format!("process/capabilities/{set}"), node.capabilities.clone())?;
    }
    Ok(())
}

/// The capabilities that a process can ever have.
pub(crate) fn bounding(spec: &mut Spec) -> Result<Vec<String>> {
    current(spec, "bounding")
}

fn current(spec: &mut Spec, set: &str) -> Result<Vec<String>> {
    let names = spec.list(&format!("process/capabilities/{set}"))?;
    Ok(names.iter().filter_map(|name| name.as_str().map(String::from)).collect())
}

/// `net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are one; `all` is `ALL`.
fn canonical(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

/// Canonical names; one that neither the table nor the node knows is refused, where runtimes only warn in a log that
/// nobody reads and start the container without it.
fn names(request: &[String], field: &str, node: &Node) -> Result<BTreeSet<String>> {
    let mut out = BTreeSet::new();
    for (index, name) in request.iter().enumerate() {
        let canonical = canonical(name);
        let known = canonical == "ALL"
            || canonical.strip_prefix("CAP_").is_some_and(|short| KNOWN.split_whitespace().any(|known| known == short))
            || node.capabilities.contains(&canonical);
        if !known {
            return invalid(format!("{field}[{index}]"), format!("there is no capability {name:?}"));
        }
        out.insert(canonical);
    }
    Ok(out)
}
