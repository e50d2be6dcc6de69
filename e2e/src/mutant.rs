//! Structural mutants: a valid request with one field changed to something nasty, for every field that its .proto file
//! declares, however deep. Made from the descriptors, so that a field that is added is attacked without anybody thinking of
//! it. Which of them are sent is decided elsewhere.

use std::{collections::HashMap, path::Path};

use anyhow::Context as _;
use prost::{Message, Name, bytes::Bytes};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// Messages within messages that are followed.
const DEPTH: usize = 8;
/// What no daemon of this system acts on.
const FOREIGN: [&str; 1] = ["windows"];

/// A request with one field changed.
pub struct Mutant<T> {
    /// The field, with dots.
    pub path: String,
    /// What it is now, in words.
    pub what: String,
    /// The request.
    pub request: T,
}

/// The descriptors of CRI.
pub struct Shapes {
    pool: DescriptorPool,
}

impl Shapes {
    /// Compiles CRI's .proto file.
    pub fn new() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto");
        let set = protox::compile([root.join("cri/runtime.proto")], [&root])?;
        Ok(Self { pool: DescriptorPool::from_file_descriptor_set(set)? })
    }

    /// Every mutant of a request.
    pub fn mutants<T: Message + Name + Default>(&self, base: &T) -> anyhow::Result<Vec<Mutant<T>>> {
        let name = T::full_name();
        let shape = self.pool.get_message_by_name(&name).with_context(|| format!("no message {name}"))?;
        let base = DynamicMessage::decode(shape.clone(), base.encode_to_vec().as_slice())?;
        let mut paths = Vec::new();
        collect(&shape, &mut Vec::new(), &mut paths);
        let mut mutants = Vec::new();
        for path in paths {
            let Some((field, parents)) = path.split_last() else { continue };
            for (what, value) in nasty(field, current(&base, parents, field)) {
                let mut message = base.clone();
                let at = descend(&mut message, parents);
                match value {
                    Some(value) => at.set_field(field, value),
                    None => at.clear_field(field),
                }
                let request = T::decode(message.encode_to_vec().as_slice())?;
                let names: Vec<_> = path.iter().map(|field| field.name().to_owned()).collect();
                mutants.push(Mutant { path: names.join("."), what, request });
            }
        }
        Ok(mutants)
    }
}

/// The paths of all fields below a message; those of a list's elements and a map's values are those of one of them.
fn collect(shape: &MessageDescriptor, path: &mut Vec<FieldDescriptor>, paths: &mut Vec<Vec<FieldDescriptor>>) {
    for field in shape.fields().filter(|field| !FOREIGN.contains(&field.name())) {
        path.push(field.clone());
        paths.push(path.clone());
        if let Kind::Message(below) = field.kind()
            && !field.is_map()
            && path.len() < DEPTH
        {
            collect(&below, path, paths);
        }
        path.pop();
    }
}

/// The message at the end of a path, made on the way where it is not there.
fn descend<'a>(message: &'a mut DynamicMessage, path: &[FieldDescriptor]) -> &'a mut DynamicMessage {
    let Some((first, rest)) = path.split_first() else { return message };
    let Kind::Message(shape) = first.kind() else { return message };
    if !message.has_field(first) {
        let empty = Value::Message(DynamicMessage::new(shape));
        message.set_field(first, if first.is_list() { Value::List(vec![empty]) } else { empty });
    }
    let value = match message.get_field_mut(first) {
        Value::List(list) => list.first_mut(),
        value => Some(value),
    };
    match value {
        Some(Value::Message(below)) => descend(below, rest),
        _ => unreachable!("a message's field is a message"),
    }
}

fn current(base: &DynamicMessage, path: &[FieldDescriptor], field: &FieldDescriptor) -> Value {
    let mut base = base.clone();
    descend(&mut base, path).get_field(field).into_owned()
}

/// Nasty values for a field; none at all is one of them.
fn nasty(field: &FieldDescriptor, now: Value) -> Vec<(String, Option<Value>)> {
    let mut values = vec![("unset".to_owned(), None)];
    if field.is_map() {
        let texts = texts();
        let map = |key: &str, value: &str| {
            Value::Map(HashMap::from([(MapKey::String(key.to_owned()), Value::String(value.to_owned()))]))
        };
        values.extend(texts.iter().map(|(what, text)| (format!("a key that is {what}"), Some(map(text, "v")))));
        values.extend(texts.iter().map(|(what, text)| (format!("a value that is {what}"), Some(map("k", text)))));
    } else if field.is_list() {
        let mut list = match now {
            Value::List(list) => list,
            _ => Vec::new(),
        };
        let filler = Value::default_value(&field.kind());
        let first = list.first().cloned().unwrap_or_else(|| filler.clone());
        list.push(first.clone());
        values.push(("with a duplicate".to_owned(), Some(Value::List(list))));
        values.push(("many of one".to_owned(), Some(Value::List(vec![first; 2000]))));
        values.push(("an empty one".to_owned(), Some(Value::List(vec![filler]))));
        let elements = scalars(&field.kind()).into_iter();
        values.extend(elements.map(|(what, value)| (format!("one that is {what}"), Some(Value::List(vec![value])))));
    } else if let Kind::Message(shape) = field.kind() {
        values.push(("empty".to_owned(), Some(Value::Message(DynamicMessage::new(shape)))));
    } else {
        values.extend(scalars(&field.kind()).into_iter().map(|(what, value)| (what, Some(value))));
    }
    values
}

fn scalars(kind: &Kind) -> Vec<(String, Value)> {
    let named = |values: Vec<Value>| values.into_iter().map(|value| (format!("{value:?}"), value)).collect();
    match kind {
        Kind::String => texts().into_iter().map(|(what, text)| (what, Value::String(text))).collect(),
        Kind::Bytes => {
            let bytes = [("NUL", b"a\0b".to_vec()), ("no UTF-8", vec![0xff, 0xfe]), ("long", vec![b'x'; 1 << 20])];
            bytes.into_iter().map(|(what, bytes)| (what.to_owned(), Value::Bytes(Bytes::from(bytes)))).collect()
        }
        Kind::Bool => named(vec![Value::Bool(true), Value::Bool(false)]),
        Kind::Enum(_) => named([-1, 1, 2, 3, 99, i32::MAX].map(Value::EnumNumber).to_vec()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => named([-1, 1, i32::MIN, i32::MAX].map(Value::I32).to_vec()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            named([-2, -1, 1, 1 << 32, i64::MIN, i64::MAX].map(Value::I64).to_vec())
        }
        Kind::Uint32 | Kind::Fixed32 => named([0, 1, u32::MAX].map(Value::U32).to_vec()),
        Kind::Uint64 | Kind::Fixed64 => named([0, 1, u64::MAX].map(Value::U64).to_vec()),
        Kind::Float | Kind::Double | Kind::Message(_) => Vec::new(),
    }
}

fn texts() -> Vec<(String, String)> {
    let short = [
        "",
        "a\0b",
        "..",
        "/",
        "../../../../etc/passwd",
        "/proc/self/root/etc/passwd",
        "/dev/null",
        "-1",
        "a b\nc",
        "ü\u{202e}",
        "%s%n",
        "*",
        "a=b",
        "{{.}}",
        "sha256:",
        "AAAA/BBBB:CCCC@sha256:00",
        "no-such-thing",
    ];
    let mut texts: Vec<_> = short.iter().map(|text| (format!("{text:?}"), (*text).to_owned())).collect();
    texts.push(("long".to_owned(), "x".repeat(5000)));
    texts.push(("a long path".to_owned(), "/x".repeat(5000)));
    texts
}
