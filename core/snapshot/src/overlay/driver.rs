//! Directories and mounts of overlayfs snapshots.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use kevel_contract::snapshot::Kind;
use kevel_model::{Labels, Mount};

use super::{
    UPPERDIR_LABEL, mapping,
    mapping::{GID_LABEL, UID_LABEL},
};
use crate::{
    error::{Error, Result},
    store::{Driver, New, Placed},
};

/// How overlayfs snapshots are mounted and shown.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Show the directory of changes as a label.
    pub upperdir_label: bool,
    /// Further options of overlay mounts; binds don't get them.
    pub mount_options: Vec<String>,
    /// Hand id mappings of labels on to the mounts.
    pub remap_ids: bool,
    /// Take parents at commit.
    pub rebase: bool,
}

/// The driver.
#[derive(Debug)]
pub struct Overlay {
    options: Options,
}

impl Overlay {
    /// A driver whose mounts get what this kernel needs besides the options given.
    pub fn new(mut options: Options) -> Self {
        let has = |options: &Options, key: &str| {
            options.mount_options.iter().any(|option| option.split('=').next() == Some(key))
        };
        if !has(&options, "userxattr") && super::in_user_namespace() {
            options.mount_options.push("userxattr".into());
        }
        // With an index an upper directory is bound to its lower ones, and a moved snapshot would not mount.
        if !has(&options, "index") && Path::new("/sys/module/overlay/parameters/index").exists() {
            options.mount_options.push("index=off".into());
        }
        Self { options }
    }

    fn bind(source: &Path, access: &str, mut options: Vec<String>) -> Vec<Mount> {
        options.extend([access.to_owned(), "rbind".to_owned()]);
        let source = source.to_string_lossy().into_owned();
        vec![Mount { kind: "bind".into(), source, options, ..Mount::default() }]
    }

    fn mapping_options(&self, labels: &Labels) -> Vec<String> {
        let label = |label: &str, option: &str| labels.get(label).map(|value| format!("{option}={value}"));
        if !self.options.remap_ids {
            return vec![];
        }
        [label(UID_LABEL, "uidmap"), label(GID_LABEL, "gidmap")].into_iter().flatten().collect()
    }
}

fn upper(dir: &Path) -> PathBuf {
    dir.join("fs")
}

impl Driver for Overlay {
    fn make(&self, dir: &Path, new: &New<'_>) -> Result<()> {
        let doing = |error| Error::io(format!("making snapshot directory {dir:?}"), error);
        let make = |path: &Path, mode| fs::DirBuilder::new().mode(mode).create(path).map_err(doing);
        let upper = upper(dir);
        make(dir, 0o700)?;
        make(&upper, 0o755)?;
        if new.kind == Kind::Active {
            make(&dir.join("work"), 0o711)?;
        }
        // The root of the merged tree is the upper directory: it looks like the parent's root, or belongs to root of
        // the container's user namespace.
        let mut owner = mapping::root(new.labels)?;
        let mut mode = 0o755;
        if let Some(parent) = &new.parent {
            let metadata = fs::metadata(self.files(parent)).map_err(doing)?;
            owner = owner.or(Some((metadata.uid(), metadata.gid())));
            mode = metadata.mode() & 0o7777;
        }
        if let Some((uid, gid)) = owner {
            chown(&upper, Some(uid), Some(gid)).map_err(doing)?;
        }
        // After the owner, which clears set-id bits; and whatever the umask is.
        fs::set_permissions(&upper, fs::Permissions::from_mode(mode)).map_err(doing)
    }

    fn files(&self, dir: &Path) -> PathBuf {
        upper(dir)
    }

    fn mounts(&self, placed: &Placed<'_>) -> Vec<Mount> {
        let mut options = self.mapping_options(placed.labels);
        let own = upper(&placed.dir);
        match (placed.kind, placed.parents.as_slice()) {
            (Kind::View, []) => return Self::bind(&own, "ro", options),
            (_, []) => return Self::bind(&own, "rw", options),
            (Kind::View, [parent]) => return Self::bind(&upper(parent), "ro", options),
            (Kind::View, _) => {}
            (Kind::Active | Kind::Committed, _) => {
                options.push(format!("workdir={}", placed.dir.join("work").display()));
                options.push(format!("upperdir={}", own.display()));
            }
        }
        let lower: Vec<_> = placed.parents.iter().map(|parent| upper(parent).display().to_string()).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        options.extend(self.options.mount_options.iter().cloned());
        vec![Mount { kind: "overlay".into(), source: "overlay".into(), options, ..Mount::default() }]
    }

    fn shown_label(&self, dir: &Path) -> Option<(&'static str, String)> {
        self.options.upperdir_label.then(|| (UPPERDIR_LABEL, upper(dir).display().to_string()))
    }

    fn rebases(&self) -> bool {
        self.options.rebase
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(kind: Kind, parents: &[&str], labels: &[(&str, &str)]) -> Vec<String> {
        let options = Options {
            remap_ids: true,
            mount_options: vec!["index=off".into(), "volatile".into()],
            ..Options::default()
        };
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let placed =
            Placed { kind, dir: "/s/9".into(), parents: parents.iter().map(PathBuf::from).collect(), labels: &labels };
        let mounts = Overlay { options }.mounts(&placed);
        let [one] = mounts.as_slice() else { panic!("{mounts:?}") };
        let mut words = vec![one.kind.clone(), one.source.clone()];
        words.extend(one.options.iter().cloned());
        words
    }

    #[test]
    fn options_come_in_containerds_order() {
        let maps = [(UID_LABEL, "0:1000:10"), (GID_LABEL, "0:2000:10")];
        assert_eq!(mounts(Kind::Active, &[], &[]), ["bind", "/s/9/fs", "rw", "rbind"]);
        assert_eq!(mounts(Kind::View, &[], &[]), ["bind", "/s/9/fs", "ro", "rbind"]);
        assert_eq!(
            mounts(Kind::View, &["/s/1"], &maps),
            ["bind", "/s/1/fs", "uidmap=0:1000:10", "gidmap=0:2000:10", "ro", "rbind"]
        );
        assert_eq!(
            mounts(Kind::View, &["/s/2", "/s/1"], &[]),
            ["overlay", "overlay", "lowerdir=/s/2/fs:/s/1/fs", "index=off", "volatile"]
        );
        assert_eq!(
            mounts(Kind::Active, &["/s/2", "/s/1"], &maps),
            [
                "overlay",
                "overlay",
                "uidmap=0:1000:10",
                "gidmap=0:2000:10",
                "workdir=/s/9/work",
                "upperdir=/s/9/fs",
                "lowerdir=/s/2/fs:/s/1/fs",
                "index=off",
                "volatile"
            ]
        );
    }
}
