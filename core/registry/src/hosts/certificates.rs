//! Certificates in Docker's layout: `*.crt` are authorities, `NAME.cert` with `NAME.key` is a client certificate.

use std::path::Path;

use super::Identity;
use crate::Error;

/// Everything in `directory`, in order of name.
pub(super) fn find(directory: &Path) -> Result<Identity, Error> {
    let mut identity = Identity::default();
    let entries = std::fs::read_dir(directory).map_err(|error| Error::config(directory, error.to_string()))?;
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    for file in files.into_iter().filter(|file| file.is_file()) {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => identity.ca.push(file),
            Some("cert") => {
                let key = Some(file.with_extension("key")).filter(|key| key.is_file());
                identity.client.push((file, key));
            }
            _ => {}
        }
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_certificates_with_keys() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["b.crt", "a.crt", "one.cert", "one.key", "two.cert", "README"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::fs::create_dir(path("c.crt")).unwrap();
        let identity = find(root.path()).unwrap();
        assert_eq!(identity.ca, [path("a.crt"), path("b.crt")]);
        assert_eq!(identity.client, [(path("one.cert"), Some(path("one.key"))), (path("two.cert"), None)]);
    }
}
