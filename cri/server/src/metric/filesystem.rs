//! The file system that writable layers are on.

use std::path::Path;

/// A file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filesystem {
    /// Its device, e.g. `/dev/vda1`.
    pub(super) device: String,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Its inodes; 0 where they are made as needed.
    pub(super) inodes: u64,
    /// Those that are free.
    pub(super) inodes_free: u64,
}

impl Filesystem {
    /// The one that a path is on; none when it cannot be asked. Blocks.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(path).ok()?;
        let table = kevel_mount::mount_table().ok()?;
        let real = path.canonicalize().ok()?;
        // Later mounts hide earlier ones at the same place, so of equals the last one counts.
        let mount = table.iter().filter(|mount| real.starts_with(&mount.mount_point));
        let mount = mount.max_by_key(|mount| mount.mount_point.components().count())?;
        Some(Self {
            device: mount.source.to_string_lossy().into_owned(),
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            inodes: stat.f_files,
            inodes_free: stat.f_ffree,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_a_file_system_of_its_own() {
        let found = Filesystem::of(Path::new("/proc")).unwrap();
        assert_eq!(found.device, "proc");
        assert!(Filesystem::of(Path::new("/")).unwrap().size > 0);
        assert_eq!(Filesystem::of(Path::new("/does/not/exist")), None);
    }
}
