//! Which labels the node's policy has for containers: a file of `key = "label"` lines.

use std::{fs, path::Path};

use super::Context;

/// What container runtimes share, and before it what the policy itself says.
const SHARED: &str = "/usr/share/containers/selinux/contexts";
const CONFIG: &str = "/etc/selinux";

/// The labels for containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Of processes; without it nothing is labelled.
    pub(crate) process: Option<Context>,
    /// Of processes that are virtual machines.
    pub(crate) machine: Option<Context>,
    /// Of files.
    pub(crate) file: Option<Context>,
}

impl Policy {
    /// Reads the node's; one without labels when there is none. Blocks.
    pub(crate) fn read() -> Self {
        let own = || {
            let config = fs::read_to_string(Path::new(CONFIG).join("config")).ok()?;
            let name = config.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE=").map(str::trim))?;
            fs::read_to_string(Path::new(CONFIG).join(name).join("contexts/lxc_contexts")).ok()
        };
        let text = fs::read_to_string(SHARED).ok().or_else(own).unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        let pairs: Vec<_> = lines.filter_map(|line| line.split_once('=')).collect();
        let find = |key: &str| {
            let found = pairs.iter().rev().find(|(name, _)| name.trim() == key);
            found.and_then(|(_, label)| Context::parse(label.trim().trim_matches('"')))
        };
        Self { process: find("process"), machine: find("kvm_process").or_else(|| find("process")), file: find("file") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_contexts() {
        let text = "# comment\n\nprocess = \"system_u:system_r:container_t:s0\"\nfile=\"system_u:object_r:container_file_t:s0\"\n\
            ; other\nkvm_process = \"system_u:system_r:container_kvm_t:s0\"\nro_file = nonsense\n";
        let policy = Policy::parse(text);
        assert_eq!(policy.process.unwrap().kind, "container_t");
        assert_eq!(policy.machine.unwrap().kind, "container_kvm_t");
        assert_eq!(policy.file.unwrap().to_string(), "system_u:object_r:container_file_t:s0");
        assert_eq!(Policy::parse("process = x\n"), Policy::default());
        assert_eq!(Policy::parse("process = u:r:t\n").machine.unwrap().kind, "t");
    }
}
