//! Whether overlayfs works here.

use std::path::Path;

use kevel_model::Mount;
use kevel_mount::{UnmountFlags, unmount_all};
use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::error::{Error, Result};

/// Whether this process runs in a user namespace other than the first.
pub fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ids: Vec<_> = map.split_whitespace().collect();
    !ids.is_empty() && ids != ["0", "0", "4294967295"]
}

/// Whether this kernel mounts overlays of id-mapped layers (Linux 5.19).
pub(crate) fn maps_ids() -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 19)
}

/// Tries an overlay mount below `root` as snapshots need it; the error says why it can't be. Blocks.
pub fn supported(root: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("probing overlayfs in {root:?}"), error);
    std::fs::create_dir_all(root).map_err(failed)?;
    let probe = root.join(format!("probe-{}", std::process::id()));
    let result = probe_in(&probe);
    let _ = unmount_all(&probe.join("merged"), UnmountFlags::DETACH); // nothing is mounted unless the probe failed
    let removed = crate::delete::delete(&probe);
    result.and(removed)
}

fn probe_in(probe: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("probing overlayfs in {probe:?}"), error);
    crate::delete::delete(probe)?;
    for name in ["lower1", "lower2", "upper", "work", "merged"] {
        std::fs::create_dir_all(probe.join(name)).map_err(failed)?;
    }
    if !tells_types(probe).map_err(failed)? {
        return Err(Error::Unsupported(format!(
            "the file system of {probe:?} does not tell the types of directory entries (xfs needs ftype=1)"
        )));
    }
    let path = |name: &str| probe.join(name).display().to_string();
    let mut options = vec![
        format!("lowerdir={}:{}", path("lower2"), path("lower1")),
        format!("upperdir={}", path("upper")),
        format!("workdir={}", path("work")),
    ];
    if in_user_namespace() {
        options.push("userxattr".to_owned());
    }
    let mount = Mount { kind: "overlay".into(), source: "overlay".into(), options, ..Mount::default() };
    let merged = probe.join("merged");
    let unsupported = |error: kevel_mount::Error| {
        Error::Unsupported(format!("overlayfs does not work in {probe:?}: {}", kevel_model::Error::from(error).chain()))
    };
    kevel_mount::mount(&mount, &merged).map_err(unsupported)?;
    // A file system that can't be an upper one may still be mounted, read-only.
    let written = std::fs::create_dir(merged.join("written"));
    unmount_all(&merged, UnmountFlags::empty()).map_err(unsupported)?;
    written.map_err(|error| Error::Unsupported(format!("overlayfs in {probe:?} can't be written to: {error}")))
}

/// Whether entries of a directory come with their types, which overlayfs needs of its upper file system.
fn tells_types(dir: &Path) -> std::io::Result<bool> {
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        if entry.file_name().to_bytes() == b"upper" {
            return Ok(entry.file_type() != FileType::Unknown);
        }
    }
    Ok(false)
}
