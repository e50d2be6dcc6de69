//! The list of cases, field by field. A case is the usual spec with some values at other places (JSON pointers; a pointer
//! that ends in `-` adds to a list), and a script that shows what came of it.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a part of a test")]

mod bad;
mod filesystem;
mod process;
mod system;

use std::path::Path;

use serde_json::Value;

use crate::harness;

pub enum Expect {
    /// As with runc.
    Same,
    /// By both; the engine names the field.
    Refused(&'static str),
    /// The engine refuses what runc takes: a gap, or on purpose; it names the field.
    OnlyOursRefuses(&'static str),
    /// On purpose otherwise than runc: this is printed.
    Ours(&'static str),
}

impl Expect {
    pub fn needs_runc(&self) -> bool {
        matches!(self, Self::Same | Self::Refused(_))
    }
}

pub struct Case {
    pub name: String,
    pub edits: Vec<(String, Value)>,
    pub script: String,
    pub expect: Expect,
    pub prepare: fn(&Path),
}

impl Case {
    pub fn new(name: impl Into<String>, edits: &[(&str, Value)], script: &str) -> Self {
        let edits = edits.iter().map(|(at, value)| ((*at).to_owned(), value.clone())).collect();
        Self { name: name.into(), edits, script: script.to_owned(), expect: Expect::Same, prepare: |_| {} }
    }

    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    pub fn prepare(mut self, prepare: fn(&Path)) -> Self {
        self.prepare = prepare;
        self
    }

    pub fn spec(&self) -> Value {
        let mut spec = harness::spec(&self.script);
        for (at, value) in &self.edits {
            put(&mut spec, at, value.clone());
        }
        spec
    }
}

/// Puts a value where a pointer says, making objects on the way; `null` removes.
fn put(spec: &mut Value, at: &str, value: Value) {
    let (parent, name) = at.rsplit_once('/').unwrap();
    let mut place = spec;
    for part in parent.split('/').skip(1) {
        place = match place {
            Value::Array(list) => &mut list[part.parse::<usize>().unwrap()],
            other => {
                if other.is_null() {
                    *other = Value::Object(serde_json::Map::new());
                }
                other.as_object_mut().unwrap().entry(part).or_insert(Value::Null)
            }
        };
    }
    match place {
        Value::Array(list) if name == "-" => list.push(value),
        Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
        other => {
            if other.is_null() {
                *other = if name == "-" { Value::Array(Vec::new()) } else { Value::Object(serde_json::Map::new()) };
            }
            match other {
                Value::Array(list) => list.push(value),
                Value::Object(map) if value.is_null() => drop(map.remove(name)),
                other => drop(other.as_object_mut().unwrap().insert(name.to_owned(), value)),
            }
        }
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = process::cases();
    cases.extend(filesystem::cases());
    cases.extend(system::cases());
    cases.extend(bad::cases());
    cases
}
