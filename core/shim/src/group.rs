//! Which shim a container belongs to: those of one group share one.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::{Error, read_small};

/// Annotations that name a group, the first that is there counts.
pub const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(default, borrow)]
    annotations: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// The group that the spec in a bundle names; sandboxes may have no spec.
pub(crate) fn of_bundle(bundle: &Path, annotations: &[&str]) -> Result<Option<String>, Error> {
    let path = bundle.join("config.json");
    let Some(text) = read_small(&path)? else { return Ok(None) };
    if text.trim_ascii().is_empty() || text.trim_ascii() == b"null" {
        return Ok(None);
    }
    let spec: Spec<'_> = serde_json::from_slice(&text)
        .map_err(|error| Error::file("understanding", path, std::io::Error::other(error)))?;
    let named = annotations.iter().find_map(|name| spec.annotations.get(*name));
    Ok(named.filter(|group| !group.is_empty()).map(|group| group.clone().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_name_groups() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: Option<&str>| {
            let path = dir.path().join("config.json");
            let _ = std::fs::remove_file(&path);
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            of_bundle(dir.path(), &GROUPS)
        };
        assert_eq!(of(None).unwrap(), None);
        for none in ["null", "{}", r#"{"annotations":{}}"#, r#"{"annotations":{"io.kubernetes.cri.sandbox-id":""}}"#] {
            assert_eq!(of(Some(none)).unwrap(), None, "{none}");
        }
        let sandbox = r#"{"ociVersion":"1","annotations":{"io.kubernetes.cri.sandbox-id":"s\u0031"}}"#;
        assert_eq!(of(Some(sandbox)).unwrap().unwrap(), "s1");
        let both = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(of(Some(both)).unwrap().unwrap(), "g");
        assert!(of(Some("{")).unwrap_err().chain().contains("config.json"));
    }
}
