//! What a `.proto` file says, as comparable lines: everything that has an effect on the wire or on names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor,
};

/// Facts by the definition (message, enum or service) and the name of its part.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    package: String,
    definitions: BTreeMap<String, BTreeMap<String, String>>,
}

impl Facts {
    /// The facts of one file, which lies below the first of `roots`, and not those of its imports.
    pub(crate) fn compile(file: &Path, roots: &[PathBuf]) -> Self {
        let set = protox::compile([file], roots).unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
        let name = file.strip_prefix(&roots[0]).unwrap().to_str().unwrap().to_owned();
        let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
        let file = pool.get_file_by_name(&name).unwrap();

        let mut facts = Self { package: file.package_name().to_owned(), ..Self::default() };
        for message in pool.all_messages().filter(|message| message.parent_file() == file) {
            facts.add(message.full_name(), message_facts(&message));
        }
        for r#enum in pool.all_enums().filter(|r#enum| r#enum.parent_file() == file) {
            facts.add(r#enum.full_name(), enum_facts(&r#enum));
        }
        for service in file.services() {
            facts.add(service.full_name(), service_facts(&service));
        }
        facts
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.definitions.extend(other.definitions);
    }

    /// The package of the file.
    pub(crate) fn package(&self) -> &str {
        &self.package
    }

    /// Full names of the messages, enums and services.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &str> {
        self.definitions.keys().map(String::as_str)
    }

    pub(crate) fn defines(&self, name: &str) -> bool {
        self.definitions.contains_key(name)
    }

    /// Each part with its full name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, &str)> {
        self.definitions
            .iter()
            .flat_map(|(name, parts)| parts.iter().map(move |(part, fact)| (format!("{name}.{part}"), fact.as_str())))
    }

    /// How `ours` differs in the definitions that these facts have.
    pub(crate) fn differences(&self, ours: &Self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (name, theirs) in &self.definitions {
            let Some(ours) = ours.definitions.get(name) else {
                found.insert(format!("- {name}"));
                continue;
            };
            for (part, fact) in theirs {
                match ours.get(part) {
                    None => found.insert(format!("- {name}.{part}: {fact}")),
                    Some(our) if our != fact => found.insert(format!("~ {name}.{part}: {fact}; ours: {our}")),
                    Some(_) => false,
                };
            }
            for (part, fact) in ours.iter().filter(|(part, _)| !theirs.contains_key(*part)) {
                found.insert(format!("+ {name}.{part}: {fact}"));
            }
        }
        found
    }

    fn add(&mut self, name: &str, parts: BTreeMap<String, String>) {
        self.definitions.insert(name.to_owned(), parts);
    }
}

fn message_facts(message: &MessageDescriptor) -> BTreeMap<String, String> {
    message.fields().map(|field| (field.name().to_owned(), field_facts(&field))).collect()
}

fn field_facts(field: &FieldDescriptor) -> String {
    let label = match field.cardinality() {
        Cardinality::Repeated if field.is_packed() => "packed ",
        Cardinality::Repeated => "repeated ",
        Cardinality::Required => "required ",
        Cardinality::Optional if field.supports_presence() => "optional ",
        Cardinality::Optional => "",
    };
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(r#enum) => r#enum.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let oneof = field.containing_oneof().map_or(String::new(), |oneof| format!(" in {}", oneof.name()));
    format!("{} {label}{kind}{oneof} json {}", field.number(), field.json_name())
}

fn enum_facts(r#enum: &EnumDescriptor) -> BTreeMap<String, String> {
    r#enum.values().map(|value| (value.name().to_owned(), value.number().to_string())).collect()
}

fn service_facts(service: &ServiceDescriptor) -> BTreeMap<String, String> {
    let direction = |streams: bool| if streams { "stream " } else { "" };
    service
        .methods()
        .map(|method| {
            let input = format!("{}{}", direction(method.is_client_streaming()), method.input().full_name());
            let output = format!("{}{}", direction(method.is_server_streaming()), method.output().full_name());
            (method.name().to_owned(), format!("({input}) returns ({output})"))
        })
        .collect()
}
