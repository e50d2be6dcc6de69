//! Who set which field of which container.

use crate::api::{CompoundFieldOwners, Field, FieldOwners, OwningPlugins};

use super::{removal, removed};

/// Two plugins set the same thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plugins {plugin:?} and {other:?} both tried to set {field}{}", entry(.key))]
pub struct Conflict {
    /// Who came later.
    pub plugin: String,
    /// Who came first.
    pub other: String,
    /// What both set.
    pub field: &'static str,
    /// Which entry of it; empty for fields that have none.
    pub key: String,
}

fn entry(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(" {key}") }
}

/// Who set what, by container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owners(OwningPlugins);

/// A field, or an entry of one.
pub(super) type Claim<'a> = (Field, Option<&'a str>);

impl Owners {
    /// As it is sent to validators.
    pub fn into_inner(self) -> OwningPlugins {
        self.0
    }

    /// Whether `plugin` may set it.
    pub(super) fn check(&self, container: &str, (field, entry): Claim<'_>, plugin: &str) -> Result<(), Conflict> {
        let Some(holder) = self.holder(container, (field, entry)) else { return Ok(()) };
        let other = match removal(holder) {
            // Whoever took away what was there may put something in its place.
            (clearer, true) if clearer == plugin => return Ok(()),
            (other, _) => other.to_owned(),
        };
        let key = entry.unwrap_or_default().to_owned();
        Err(Conflict { plugin: plugin.to_owned(), other, field: field.as_str_name(), key })
    }

    /// Sets it for `plugin`, unless another has.
    pub(super) fn claim(&mut self, container: &str, claim: Claim<'_>, plugin: &str) -> Result<(), Conflict> {
        self.check(container, claim, plugin)?;
        self.put(container, claim, plugin.to_owned());
        Ok(())
    }

    /// Takes it from whoever has it.
    pub(super) fn clear(&mut self, container: &str, claim: Claim<'_>, plugin: &str) {
        self.put(container, claim, removed(plugin));
    }

    /// Adds `plugin` to those who set a field that several may.
    pub(super) fn share(&mut self, container: &str, field: Field, plugin: &str) {
        let all = match self.holder(container, (field, None)) {
            Some(others) => format!("{others},{plugin}"),
            None => plugin.to_owned(),
        };
        self.put(container, (field, None), all);
    }

    fn holder(&self, container: &str, (field, entry): Claim<'_>) -> Option<&String> {
        let fields = self.0.owners.get(container)?;
        match entry {
            None => fields.simple.get(&(field as i32)),
            Some(entry) => fields.compound.get(&(field as i32))?.owners.get(entry),
        }
    }

    fn put(&mut self, container: &str, (field, entry): Claim<'_>, holder: String) {
        let fields: &mut FieldOwners = self.0.owners.entry(container.to_owned()).or_default();
        match entry {
            None => drop(fields.simple.insert(field as i32, holder)),
            Some(entry) => {
                let entries: &mut CompoundFieldOwners = fields.compound.entry(field as i32).or_default();
                entries.owners.insert(entry.to_owned(), holder);
            }
        }
    }
}
