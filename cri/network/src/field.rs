//! Reading JSON that strangers wrote, with errors that name the field.
//!
//! `null` counts as absent everywhere, as it does for the Go programs on the other side.

use serde_json::{Map, Value};
use std::net::IpAddr;

/// Lists longer than this are refused.
pub(crate) const MAX_ITEMS: usize = 1024;
/// Strings longer than this are refused where a name, an address or a path is expected.
pub(crate) const MAX_STRING: usize = 4096;

/// A field that is missing, has the wrong type, or holds a value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// Where in the document, for example `ips[1].address`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// A JSON value and the path that led to it.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    path: String,
    value: &'a Value,
}

/// A JSON object and the path that led to it.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    pub(crate) fn root(map: &'a Map<String, Value>) -> Self {
        Self { path: String::new(), map }
    }

    /// The field `key`, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.map.get(key).filter(|v| !v.is_null())?;
        Some(Node { path: self.path_of(key), value })
    }

    pub(crate) fn require(&self, key: &str) -> Result<Node<'a>, FieldError> {
        self.get(key).ok_or_else(|| FieldError::new(self.path_of(key), "missing"))
    }

    /// The string field `key`; empty when absent.
    pub(crate) fn string(&self, key: &str) -> Result<String, FieldError> {
        self.get(key).map_or(Ok(String::new()), |node| node.string())
    }

    /// The list field `key`; empty when absent.
    pub(crate) fn list(&self, key: &str) -> Result<Vec<Node<'a>>, FieldError> {
        self.get(key).map_or(Ok(Vec::new()), |node| node.list())
    }

    /// The list of strings `key`; empty when absent.
    pub(crate) fn strings(&self, key: &str) -> Result<Vec<String>, FieldError> {
        self.list(key)?.iter().map(Node::string).collect()
    }

    /// The address field `key`; an absent or empty one is `None`.
    pub(crate) fn ip(&self, key: &str) -> Result<Option<IpAddr>, FieldError> {
        match self.get(key) {
            Some(node) if node.value.as_str() != Some("") => node.ip().map(Some),
            _ => Ok(None),
        }
    }

    /// The non-negative number `key`.
    pub(crate) fn uint(&self, key: &str) -> Result<Option<u32>, FieldError> {
        self.get(key).map(|node| node.uint()).transpose()
    }

    /// The boolean field `key`, false when absent. The strings "true" and "false" count, as they do for libcni.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, FieldError> {
        let Some(node) = self.get(key) else { return Ok(false) };
        match node.value {
            Value::Bool(value) => Ok(*value),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(node.error("not a boolean")),
        }
    }

    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl<'a> Node<'a> {
    pub(crate) fn error(&self, reason: impl Into<String>) -> FieldError {
        FieldError::new(&self.path, reason)
    }

    pub(crate) fn string(&self) -> Result<String, FieldError> {
        let text = self.value.as_str().ok_or_else(|| self.error("not a string"))?;
        if text.len() > MAX_STRING {
            return Err(self.error(format!("longer than {MAX_STRING} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(self.error("contains a control character"));
        }
        Ok(text.to_owned())
    }

    pub(crate) fn list(&self) -> Result<Vec<Node<'a>>, FieldError> {
        let items = self.value.as_array().ok_or_else(|| self.error("not a list"))?;
        if items.len() > MAX_ITEMS {
            return Err(self.error(format!("more than {MAX_ITEMS} entries")));
        }
        let node = |(i, value)| Node { path: format!("{}[{i}]", self.path), value };
        Ok(items.iter().enumerate().map(node).collect())
    }

    pub(crate) fn object(&self) -> Result<Object<'a>, FieldError> {
        let map = self.value.as_object().ok_or_else(|| self.error("not an object"))?;
        Ok(Object { path: self.path.clone(), map })
    }

    pub(crate) fn uint(&self) -> Result<u32, FieldError> {
        let number = self.value.as_u64().ok_or_else(|| self.error("not a non-negative integer"))?;
        u32::try_from(number).map_err(|_| self.error("does not fit 32 bits"))
    }

    pub(crate) fn ip(&self) -> Result<IpAddr, FieldError> {
        let text = self.string()?;
        text.parse().map_err(|_| self.error(format!("{text:?} is not an IP address")))
    }

    /// An address with a prefix length, such as `10.1.0.5/16`.
    pub(crate) fn cidr(&self) -> Result<(IpAddr, u8), FieldError> {
        let text = self.string()?;
        let bad = || self.error(format!("{text:?} is not an address with a prefix length"));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        if !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest { Err(bad()) } else { Ok((address, prefix)) }
    }
}
