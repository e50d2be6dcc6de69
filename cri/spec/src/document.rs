//! The spec as a JSON document, changed member by member so that members nobody here knows survive.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// An OCI runtime spec. The order of its members is stable: the same input gives the same bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec(Value);

impl Spec {
    /// Takes a document that must be an object.
    pub fn new(document: Value) -> Result<Self> {
        if document.is_object() {
            return Ok(Self(document));
        }
        Err(Error::Shape { path: "/".into(), expected: "an object" })
    }

    /// The document.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The document, owned.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// The bytes of `config.json`.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// A member by its JSON pointer, such as `/process/cwd`.
    pub fn get(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    /// The process as JSON, for `Task.Exec` after changes; see [`crate::exec`].
    pub fn process(&self) -> Option<&Value> {
        self.get("/process")
    }

    /// The limits as JSON, for `Task.Update`.
    pub fn resources(&self) -> Option<&Value> {
        self.get("/linux/resources")
    }

    /// The annotations; the shim and NRI read them.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0.get("annotations")?.get(key)?.as_str()
    }

    /// The object at `path` (segments joined by `/`), made if missing.
    pub(crate) fn object(&mut self, path: &str) -> Result<&mut Map<String, Value>> {
        let mut at = &mut self.0;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let members = at.as_object_mut().ok_or_else(|| shape(path, "an object"))?;
            at = members.entry(segment).or_insert(Value::Null);
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
        }
        at.as_object_mut().ok_or_else(|| shape(path, "an object"))
    }

    /// The array at `path`, made if missing.
    pub(crate) fn list(&mut self, path: &str) -> Result<&mut Vec<Value>> {
        let (parent, name) = split(path);
        let at = self.object(parent)?.entry(name).or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Array(Vec::new());
        }
        at.as_array_mut().ok_or_else(|| shape(path, "an array"))
    }

    pub(crate) fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<()> {
        let (parent, name) = split(path);
        self.object(parent)?.insert(name.into(), value.into());
        Ok(())
    }

    /// Removes the member at `path`; what is not there stays not there.
    pub(crate) fn remove(&mut self, path: &str) {
        let (parent, name) = split(path);
        let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
        if let Some(Value::Object(members)) = self.0.pointer_mut(&parent) {
            members.shift_remove(name);
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn shape(path: &str, expected: &'static str) -> Error {
    Error::Shape { path: path.into(), expected }
}
