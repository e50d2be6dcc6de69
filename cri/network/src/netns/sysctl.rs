//! `net.*` settings in the calling thread's namespace.

use crate::FieldError;
use std::fs;
use std::io;
use std::path::PathBuf;

/// A setting whose file is known to be below `/proc/sys/net`.
pub(super) struct Setting {
    file: PathBuf,
    value: String,
}

/// Both spellings of sysctl(8) are understood: `net.ipv4.tcp_rmem`, and `net/ipv4/conf/eth0.1/forwarding` for names
/// that contain dots; the first separator decides.
pub(super) fn parse(settings: &[(String, String)]) -> Result<Vec<Setting>, FieldError> {
    settings.iter().map(|(key, value)| parse_one(key, value)).collect()
}

pub(super) fn apply(settings: &[Setting]) -> io::Result<()> {
    for setting in settings {
        fs::write(&setting.file, &setting.value).map_err(|e| {
            io::Error::new(e.kind(), format!("writing {:?} to {}: {e}", setting.value, setting.file.display()))
        })?;
    }
    Ok(())
}

fn parse_one(key: &str, value: &str) -> Result<Setting, FieldError> {
    let field = || format!("sysctls.{key}");
    let separator = key.chars().find(|c| matches!(c, '.' | '/')).unwrap_or('.');
    let parts: Vec<&str> = key.split(separator).collect();
    if parts.len() < 2 || parts[0] != "net" {
        return Err(FieldError::new(field(), "not a setting of the network namespace (net.*)"));
    }
    let is_name = |part: &&str| !part.is_empty() && !part.contains(['/', '\0']) && *part != "." && *part != "..";
    if !parts.iter().all(is_name) {
        return Err(FieldError::new(field(), "not the name of a setting"));
    }
    if value.contains(['\0', '\n']) {
        return Err(FieldError::new(field(), "the value is more than one line"));
    }
    Ok(Setting {
        file: parts.iter().fold(PathBuf::from("/proc/sys"), |path, part| path.join(part)),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files_of_the_network_only() {
        let check = |key: &str, want: Option<&str>| {
            let got = parse_one(key, "1").ok().map(|s| s.file.display().to_string());
            assert_eq!(got.as_deref(), want, "{key}");
        };
        check("net.ipv4.ip_unprivileged_port_start", Some("/proc/sys/net/ipv4/ip_unprivileged_port_start"));
        check("net/ipv4/conf/eth0.1/forwarding", Some("/proc/sys/net/ipv4/conf/eth0.1/forwarding"));
        for bad in ["", "net", "kernel.msgmax", "net..ipv4", "net/../kernel/core_pattern", "net.ipv4.a/b", "net/./a"] {
            check(bad, None);
        }
        assert!(parse_one("net.a", "1\n2").is_err());
    }
}
