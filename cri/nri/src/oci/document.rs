//! Members of a JSON document by path.

use serde_json::{Map, Value};

use super::{Error, Result};

/// The object at `path` (segments joined by `/`), made if missing.
pub(super) fn object<'a>(spec: &'a mut Value, path: &str) -> Result<&'a mut Map<String, Value>> {
    let wrong = || Error::Shape { path: path.to_owned(), expected: "an object" };
    let mut at = spec;
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        at = at.as_object_mut().ok_or_else(wrong)?.entry(segment).or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
    }
    at.as_object_mut().ok_or_else(wrong)
}

/// The array at `path`, made if missing.
pub(super) fn array<'a>(spec: &'a mut Value, path: &str) -> Result<&'a mut Vec<Value>> {
    let (parent, name) = split(path);
    let at = object(spec, parent)?.entry(name).or_insert(Value::Null);
    if at.is_null() {
        *at = Value::Array(Vec::new());
    }
    at.as_array_mut().ok_or_else(|| Error::Shape { path: path.to_owned(), expected: "an array" })
}

/// Sets the member at `path`.
pub(super) fn set(spec: &mut Value, path: &str, value: impl Into<Value>) -> Result<()> {
    let (parent, name) = split(path);
    object(spec, parent)?.insert(name.to_owned(), value.into());
    Ok(())
}

/// Removes the member at `path`, if it is there.
pub(super) fn remove(spec: &mut Value, path: &str) {
    let (parent, name) = split(path);
    let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
    if let Some(Value::Object(members)) = spec.pointer_mut(&parent) {
        members.shift_remove(name);
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
