//! Where to apply a layer: into the directory behind a mount where that is enough, through the mount otherwise.

use std::path::{Path, PathBuf};

use kevel_model::Mount;

use crate::Form;

/// Where a layer goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Straight into a directory.
    Directory {
        root: PathBuf,
        form: Form,
        /// The layers below, topmost first, if the directory is the upper one of an overlay.
        lowers: Vec<PathBuf>,
    },
    /// Through mounts that have to be made.
    Mounted,
}

impl Target {
    /// The place that `mounts` write to.
    pub(super) fn of(mounts: &[Mount]) -> Self {
        let [one] = mounts else { return Self::Mounted };
        if !one.target.is_empty() || one.is_read_only() || one.options.iter().any(|option| is_unusual(option)) {
            return Self::Mounted;
        }
        match one.kind.as_str() {
            "overlay" => Overlay::of(one).map_or(Self::Mounted, |overlay| Self::Directory {
                root: overlay.upper,
                form: Form::Overlay,
                lowers: overlay.lowers,
            }),
            "bind" => {
                let root = PathBuf::from(&one.source);
                let form = if is_upper(&root) { Form::Overlay } else { Form::Plain };
                Self::Directory { root, form, lowers: Vec::new() }
            }
            _ => Self::Mounted,
        }
    }
}

/// Whether files behind a mount with this option are others than those seen through it, or are kept otherwise.
pub(super) fn is_unusual(option: &str) -> bool {
    option == "userxattr"
        || ["uidmap=", "gidmap=", "redirect_dir=", "metacopy="].iter().any(|key| option.starts_with(key))
}

/// The directories of an overlay mount that can be written to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    pub(super) upper: PathBuf,
    pub(super) lowers: Vec<PathBuf>,
}

impl Overlay {
    pub(super) fn of(mount: &Mount) -> Option<Self> {
        let option = |key: &str| mount.options.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('='));
        // A backslash escapes a colon. Snapshotters have neither in their paths; who has can be mounted.
        let lower = option("lowerdir").filter(|lower| !lower.contains('\\'))?;
        Some(Self { upper: option("upperdir")?.into(), lowers: lower.split(':').map(PathBuf::from).collect() })
    }
}

/// Whether `root` will be a layer of an overlay although it is bound now: the first snapshot of a chain, or one that
/// gets its parent only when it is committed ("rebase"). Then its whiteouts must be kept. Overlay snapshotters, ours and
/// containerd's, keep `fs` beside `work`.
fn is_upper(root: &Path) -> bool {
    root.file_name().is_some_and(|name| name == "fs") && root.with_file_name("work").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, source: &str, options: &[&str], expected: Target) {
        let mount = Mount {
            kind: kind.into(),
            source: source.into(),
            options: options.iter().map(|&option| option.into()).collect(),
            ..Mount::default()
        };
        assert_eq!(Target::of(std::slice::from_ref(&mount)), expected, "{mount:?}");
        assert_eq!(Target::of(&[mount.clone(), mount]), Target::Mounted);
    }

    #[test]
    fn overlays_and_binds_need_no_mount() {
        let directory = |root: &str, form, lowers: &[&str]| Target::Directory {
            root: root.into(),
            form,
            lowers: lowers.iter().map(PathBuf::from).collect(),
        };
        let overlay = ["workdir=/w", "upperdir=/u", "lowerdir=/b:/a"];
        check("overlay", "overlay", &overlay, directory("/u", Form::Overlay, &["/b", "/a"]));
        check("overlay", "overlay", &["lowerdir=/b:/a"], Target::Mounted);
        check("overlay", "overlay", &["upperdir=/u", "lowerdir=/b\\:c"], Target::Mounted);
        check("bind", "/snap", &["rbind", "rw"], directory("/snap", Form::Plain, &[]));
        check("bind", "/snap", &["rbind", "ro"], Target::Mounted);
        check("erofs", "/image", &[], Target::Mounted);
        check("bind", "/snap", &["uidmap=0:1000:10", "rw", "rbind"], Target::Mounted);
        check("overlay", "overlay", &["upperdir=/u", "lowerdir=/b", "metacopy=on"], Target::Mounted);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("fs");
        check("bind", root.to_str().unwrap(), &["rw"], directory(root.to_str().unwrap(), Form::Plain, &[]));
        std::fs::create_dir(dir.path().join("work")).unwrap();
        check("bind", root.to_str().unwrap(), &["rw"], directory(root.to_str().unwrap(), Form::Overlay, &[]));
    }
}
