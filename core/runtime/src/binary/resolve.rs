//! From the name of a runtime to the binary of its shim.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{Daemon, Error, Result};

/// Binaries that were found, by runtime name.
#[derive(Default)]
pub(crate) struct Binaries {
    found: Mutex<HashMap<String, PathBuf>>,
}

impl Binaries {
    /// The binary for a runtime: a `runtime_path` wins over the name. Looks at the disk at most once per name, unless the
    /// binary that was found is gone.
    pub(crate) fn resolve(&self, daemon: &Daemon, name: &str, runtime_path: &str) -> Result<PathBuf> {
        let name = if runtime_path.is_empty() { name } else { runtime_path };
        let lock = || self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = lock().get(name).filter(|path| is_executable(path)) {
            return Ok(path.clone());
        }
        let path = find(daemon, name)?;
        lock().insert(name.to_owned(), path.clone());
        Ok(path)
    }
}

/// `io.containerd.runc.v2` is `containerd-shim-runc-v2`: the last two parts of the name. An absolute path is the binary
/// itself.
fn find(daemon: &Daemon, name: &str) -> Result<PathBuf> {
    let bad = |reason| Error::RuntimeName { name: name.to_owned(), reason };
    let missing = |binary: &str| Error::NoBinary { name: name.to_owned(), binary: binary.to_owned() };
    if name.is_empty() {
        return Err(bad("is empty"));
    }
    if name.contains('/') {
        let path = Path::new(name);
        if !path.is_absolute() {
            return Err(bad("is a relative path; give an absolute one, or a name such as io.containerd.runc.v2"));
        }
        return if is_executable(path) { Ok(path.to_owned()) } else { Err(missing(name)) };
    }
    let binary = binary_name(name).ok_or_else(|| bad("is not of the form io.containerd.runc.v2"))?;
    let beside = daemon.binary.parent().map(Path::to_owned);
    let mut places = daemon.search_path.iter().cloned().chain(beside);
    let found = places.find_map(|dir| Some(dir.join(&binary)).filter(|path| path.is_absolute() && is_executable(path)));
    found.ok_or_else(|| missing(&binary))
}

fn binary_name(runtime: &str) -> Option<String> {
    let mut parts = runtime.rsplit('.');
    let version = parts.next().filter(|part| !part.is_empty())?;
    let name = parts.next().filter(|part| !part.is_empty())?;
    Some(format!("containerd-shim-{name}-{version}"))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names() {
        for (runtime, want) in [
            ("io.containerd.runc.v2", Some("containerd-shim-runc-v2")),
            ("io.containerd.runsc.v1", Some("containerd-shim-runsc-v1")),
            ("kata.v2", Some("containerd-shim-kata-v2")),
            ("runc", None),
            ("io.containerd.", None),
            ("..", None),
        ] {
            assert_eq!(binary_name(runtime).as_deref(), want, "{runtime}");
        }
    }

    #[test]
    fn the_search_path_comes_before_the_daemons_own_directory() {
        let dir = tempfile::tempdir().unwrap();
        let make = |place: &str, mode| {
            let path = dir.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        make("plain/containerd-shim-x-v1", 0o644);
        let first = make("first/containerd-shim-x-v1", 0o755);
        make("daemon/containerd-shim-x-v1", 0o755);
        let beside = make("daemon/containerd-shim-y-v1", 0o755);
        let daemon = Daemon {
            binary: dir.path().join("daemon/keveld"),
            search_path: vec!["".into(), dir.path().join("plain"), dir.path().join("first")],
            ..Daemon::default()
        };
        let binaries = Binaries::default();
        let check = |name: &str, path: &str| binaries.resolve(&daemon, name, path);
        assert_eq!(check("a.x.v1", "").unwrap(), first);
        assert_eq!(check("a.y.v1", "").unwrap(), beside);
        assert_eq!(check("a.nothing.v1", beside.to_str().unwrap()).unwrap(), beside);
        assert!(matches!(check("a.z.v1", ""), Err(Error::NoBinary { .. })));
        assert!(matches!(check("bin/shim", ""), Err(Error::RuntimeName { .. })));
        assert!(matches!(check("", ""), Err(Error::RuntimeName { .. })));
        fs::remove_file(&first).unwrap();
        assert!(
            check("a.x.v1", "").unwrap().ends_with("daemon/containerd-shim-x-v1"),
            "a stale find is looked up again"
        );
    }
}
