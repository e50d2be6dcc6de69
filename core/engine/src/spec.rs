//! Reads `config.json`, with errors that name the field.

use std::{fs, io::Read as _, path::Path};

use oci_spec::runtime::{Capability, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// The largest spec that is read.
const MOST: u64 = 16 << 20;

/// A spec, and names of capabilities in it that this engine does not know and leaves out, as the standard wants.
#[derive(Clone, Debug)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// The capabilities that were left out.
    pub unknown_capabilities: Vec<String>,
}

/// Parses a container's spec.
///
/// # Errors
///
/// The place where it is not a spec.
pub fn parse(text: &[u8]) -> Result<Parsed<Spec>> {
    let mut value = json(text)?;
    let unknown_capabilities = value.get_mut("process").map(strip).unwrap_or_default();
    let value: Spec = typed(value)?;
    check_version(value.version())?;
    Ok(Parsed { value, unknown_capabilities })
}

/// Parses the spec of one more process.
///
/// # Errors
///
/// The place where it is not one.
pub fn parse_process(text: &[u8]) -> Result<Parsed<Process>> {
    let mut value = json(text)?;
    let unknown_capabilities = strip(&mut value);
    Ok(Parsed { value: typed(value)?, unknown_capabilities })
}

/// Reads `config.json` of a bundle.
///
/// # Errors
///
/// The file can't be read, or the place where it is not a spec.
pub fn load(bundle: &Path) -> Result<Parsed<Spec>> {
    let path = bundle.join("config.json");
    let failed = |err| Error::system(format!("read {}", path.display()), err);
    let mut text = Vec::new();
    let file = fs::File::open(&path).map_err(failed)?;
    #[expect(clippy::disallowed_methods, reason = "bounded by take")]
    file.take(MOST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MOST {
        return Err(Error::invalid("config.json", format!("is larger than {MOST} bytes")));
    }
    parse(&text)
}

fn json(text: &[u8]) -> Result<Value> {
    serde_json::from_slice(text).map_err(|source| Error::Parse { field: ".".into(), source })
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|err| {
        let field = err.path().to_string();
        Error::Parse { field, source: err.into_inner() }
    })
}

/// Takes capabilities out that nobody knows: newer kernels have more, and they can't be given anyway.
fn strip(process: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let known = name.as_str().is_none_or(|name| {
                name.starts_with("CAP_") && serde_json::from_value::<Capability>(Value::String(name.to_owned())).is_ok()
            });
            if let Some(name) = name.as_str().filter(|_| !known) {
                unknown.push(name.to_owned());
            }
            known
        });
    }
    unknown
}

fn check_version(version: &str) -> Result<()> {
    let major = version.split('.').next().unwrap_or_default();
    if version.is_empty() {
        return Err(Error::invalid("ociVersion", "is missing"));
    }
    if major != "1" || version.split('.').count() < 3 {
        return Err(Error::unsupported("ociVersion", format!("version {version:?} of the standard")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_named() {
        for (value, field) in [
            (
                json!({"ociVersion": "1.0.2", "process": {"cwd": "/", "args": [1], "user": {"uid": 0, "gid": 0}}}),
                "process.args[0]",
            ),
            (
                json!({"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}, {"type": "new"}]}}),
                "linux.namespaces[1].type",
            ),
            (json!({"ociVersion": "1.0.2", "mounts": {}}), "mounts"),
            (json!({"ociVersion": "2.0.0"}), "ociVersion"),
            (json!({}), "ociVersion"),
        ] {
            let err = parse(value.to_string().as_bytes()).unwrap_err();
            assert_eq!(err.field(), Some(field), "{err}");
        }
    }

    #[test]
    fn unknown_capabilities_are_left_out_and_named() {
        let caps = json!({"bounding": ["CAP_KILL", "CAP_TO_COME"], "effective": ["kill"]});
        let value = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities": caps});
        let parsed = parse_process(value.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.unknown_capabilities, ["CAP_TO_COME", "kill"]);
        assert_eq!(parsed.value.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
    }

    fn document() -> impl Strategy<Value = Value> {
        let names = prop::sample::select(vec![
            "ociVersion",
            "process",
            "root",
            "mounts",
            "linux",
            "hooks",
            "args",
            "env",
            "cwd",
            "user",
            "capabilities",
            "bounding",
            "namespaces",
            "type",
            "path",
            "options",
            "resources",
            "memory",
            "limit",
            "seccomp",
            "syscalls",
            "devices",
            "rlimits",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names.clone(), inner, 0..6).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_document_is_answered(value in document()) {
            let _either = parse(value.to_string().as_bytes());
            let _either = parse_process(value.to_string().as_bytes());
        }

        #[test]
        fn any_bytes_are_answered(text in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(parse(&text).is_err());
        }
    }
}
