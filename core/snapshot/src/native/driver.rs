//! Directories and mounts of native snapshots.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use kevel_contract::snapshot::Kind;
use kevel_model::Mount;

use super::copy::copy_tree;
use crate::{
    error::{Error, Result},
    store::{Driver, New, Placed},
};

/// The driver.
#[derive(Debug)]
pub struct Native;

impl Driver for Native {
    fn make(&self, dir: &Path, new: &New<'_>) -> Result<()> {
        let doing = |error| Error::io(format!("making snapshot directory {dir:?}"), error);
        fs::create_dir(dir).map_err(doing)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(doing)?;
        match &new.parent {
            // A view shows its parent's own tree.
            Some(parent) if new.kind == Kind::Active => copy_tree(parent, dir),
            _ => Ok(()),
        }
    }

    fn files(&self, dir: &Path) -> PathBuf {
        dir.to_owned()
    }

    fn mounts(&self, placed: &Placed<'_>) -> Vec<Mount> {
        let (source, access) = match (placed.kind, placed.parents.first()) {
            (Kind::View, Some(parent)) => (parent, "ro"),
            (Kind::View, None) => (&placed.dir, "ro"),
            _ => (&placed.dir, "rw"),
        };
        let source = source.to_string_lossy().into_owned();
        vec![Mount { kind: "bind".into(), source, options: vec!["rbind".into(), access.into()], ..Mount::default() }]
    }

    fn shown_label(&self, _: &Path) -> Option<(&'static str, String)> {
        None
    }

    fn rebases(&self) -> bool {
        false
    }
}
