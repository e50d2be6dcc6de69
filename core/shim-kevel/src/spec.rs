//! The little that the shim reads of a container's spec.

use std::path::Path;

use kevel_shim::read_small;
use serde::Deserialize;

use crate::error::{Error, Result};

#[derive(Default, Deserialize)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

/// Whether processes may outlive the first one: only a process namespace of the container's own ends them all with it.
pub(crate) fn processes_outlive_the_first(bundle: &Path) -> Result<bool> {
    let path = bundle.join("config.json");
    let text = read_small(&path)?.ok_or_else(|| Error::Invalid(format!("{path:?} does not exist")))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| Error::Invalid(format!("{path:?}: {error}")))?;
    let namespaces = spec.linux.unwrap_or_default().namespaces;
    Ok(!namespaces.iter().any(|namespace| namespace.kind == "pid" && namespace.path.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_own_process_namespace_ends_them_all() {
        let dir = tempfile::tempdir().unwrap();
        for (spec, want) in [
            (r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#, false),
            (r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#, true),
            (r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#, true),
            (r#"{"linux":{}}"#, true),
            ("{}", true),
        ] {
            std::fs::write(dir.path().join("config.json"), spec).unwrap();
            assert_eq!(processes_outlive_the_first(dir.path()).unwrap(), want, "{spec}");
        }
        std::fs::write(dir.path().join("config.json"), "").unwrap();
        assert!(processes_outlive_the_first(dir.path()).is_err());
    }
}
