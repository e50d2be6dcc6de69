//! Gives files the label of the container that mounts them. Blocks, for as long as the tree is large; the caller sees to a
//! limit.

use std::{fs, io, path::Path};

use kevel_model::{Error, Result};
use rustix::{
    fs::{XattrFlags, lgetxattr, lsetxattr},
    io::Errno,
};

/// Where the label of a file is.
const ATTRIBUTE: &str = "security.selinux";
/// What a node does not work without when it is labelled for a container.
const NEVER: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
];

/// Labels a file, or a directory with all that is in it, itself last. A directory that has the label already is taken as a
/// hint that most below has it, too. What vanishes meanwhile is no error, nor a file system without labels.
///
/// # Errors
/// When the path is one of the node's own, or a label cannot be set.
pub(crate) fn relabel(path: &Path, label: &str) -> Result<()> {
    let clean: std::path::PathBuf = path.components().collect();
    if NEVER.iter().any(|never| clean == Path::new(never)) {
        return Err(Error::invalid_argument(format!("{} can't be relabelled, the node needs it", clean.display())));
    }
    let fast = has(&clean, label);
    tree(&clean, label, fast).map_err(|error| Error::io(format!("labelling {} as {label}", clean.display()), error))
}

fn tree(path: &Path, label: &str, fast: bool) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?.file_type(),
    };
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            tree(&entry?.path(), label, fast)?;
        }
    }
    if fast && has(path, label) {
        return Ok(());
    }
    match lsetxattr(path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file has the label; the kernel may end it with a NUL.
fn has(path: &Path, label: &str) -> bool {
    let mut value = [0_u8; 512];
    let read = lgetxattr(path, ATTRIBUTE, &mut value[..]);
    let own = read.ok().and_then(|length| value.get(..length));
    own.is_some_and(|own| own.strip_suffix(b"\0").unwrap_or(own) == label.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

    /// Whether this machine lets root set labels; every Linux with extended attributes does, with SELinux or without.
    fn labels(dir: &Path) -> bool {
        match lsetxattr(dir, ATTRIBUTE, b"u:r:t:s0", XattrFlags::empty()) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("skipped: no labels can be set in {}: {error}", dir.display());
                false
            }
        }
    }

    #[test]
    fn a_tree_is_labelled_and_what_links_lead_to_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::write(volume.join("a/b/file"), "").unwrap();
        fs::write(&outside, "").unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        if !labels(dir.path()) {
            return;
        }
        relabel(&volume, LABEL).unwrap();
        for name in ["", "a", "a/b", "a/b/file"] {
            assert!(has(&volume.join(name), LABEL), "{name}");
        }
        assert!(!has(&outside, LABEL));
        // Again, with something new in it, and for somebody else.
        fs::write(volume.join("new"), "").unwrap();
        relabel(&volume, LABEL).unwrap();
        assert!(has(&volume.join("new"), LABEL));
        let other = LABEL.replace("c1", "c7");
        relabel(&volume, &other).unwrap();
        assert!(has(&volume.join("a/b/file"), &other) && has(&volume, &other));
        relabel(&volume.join("gone"), LABEL).unwrap();
    }

    #[test]
    fn what_the_node_needs_is_left_alone() {
        for path in ["/", "/etc", "/etc/", "/var/lib", "/usr/.", "//tmp"] {
            let error = relabel(Path::new(path), LABEL).unwrap_err();
            assert!(error.to_string().contains("the node needs it"), "{path}: {error}");
        }
    }
}
