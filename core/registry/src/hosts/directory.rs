//! Finds the directory that configures a registry.

use std::path::{Path, PathBuf};

use crate::Error;

/// The first directory there is, of those that may be meant for `registry` below each path: with the port written
/// `_port_`, with the port written `:port`, and `_default`.
pub(super) fn find(config_paths: &[PathBuf], registry: &str) -> Result<Option<PathBuf>, Error> {
    for path in config_paths {
        for candidate in candidates(path, registry) {
            match std::fs::metadata(&candidate) {
                Ok(metadata) if metadata.is_dir() => return Ok(Some(candidate)),
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(Error::config(&candidate, error.to_string())),
            }
        }
    }
    Ok(None)
}

fn candidates(path: &Path, registry: &str) -> Vec<PathBuf> {
    let mut names = Vec::with_capacity(3);
    if let (Some((host, port)), Some(_)) = (registry.rsplit_once(':'), super::port(registry)) {
        names.push(format!("{host}_{port}_"));
    }
    names.push(registry.to_owned());
    names.push("_default".to_owned());
    names.into_iter().map(|name| path.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_name_wins() {
        let root = tempfile::tempdir().unwrap();
        let first = root.path().join("first");
        let second = root.path().join("second");
        let paths = [first.clone(), second.clone()];
        let check = |make: &Path| {
            std::fs::create_dir_all(make).unwrap();
            assert_eq!(find(&paths, "host:5000").unwrap().as_deref(), Some(make));
        };
        assert_eq!(find(&paths, "host:5000").unwrap(), None);
        check(&second.join("_default"));
        check(&second.join("host:5000"));
        check(&first.join("_default"));
        check(&first.join("host:5000"));
        check(&first.join("host_5000_"));
        assert_eq!(find(&paths, "other").unwrap(), Some(first.join("_default")));
    }
}
