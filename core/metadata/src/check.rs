//! What is refused before anything is changed.

use kevel_model::{Error, Labels, Result, check_identifier, check_labels};

/// The longest name, key or reference, in bytes.
const MAX_NAME: usize = 4096;

/// Refuses an identifier of a container or sandbox that is not one; `field` says which it is.
pub(crate) fn identifier(field: &str, id: &str) -> Result<()> {
    check_identifier(id).map_err(|error| Error::invalid_argument(format!("{field}: {error}")))
}

/// Refuses a free-form name that is empty, too long or has a zero byte; `field` says what it names.
pub(crate) fn name(field: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid_argument(format!("{field} must not be empty")));
    }
    if name.len() > MAX_NAME {
        return Err(Error::invalid_argument(format!("{field} is {} bytes, more than {MAX_NAME}", name.len())));
    }
    if name.contains(['\0', '\u{1}']) {
        return Err(Error::invalid_argument(format!("{field} {name:?} has a control character")));
    }
    Ok(())
}

/// Refuses labels that are empty-keyed or too long.
pub(crate) fn labels(labels: &Labels) -> Result<()> {
    Ok(check_labels(labels)?)
}

/// Changes one entry of a map as a field path `<prefix>KEY` asks: to the updated value, or away.
pub(crate) fn entry<V: Clone>(
    current: &mut std::collections::BTreeMap<String, V>,
    update: &std::collections::BTreeMap<String, V>,
    key: &str,
) {
    match update.get(key) {
        Some(value) => drop(current.insert(key.to_owned(), value.clone())),
        None => drop(current.remove(key)),
    }
}

/// "invalid argument" for a field path that names nothing that can change.
pub(crate) fn immutable(kind: &str, name: &str, path: &str) -> Error {
    Error::invalid_argument(format!("cannot update field {path:?} of {kind} {name:?}"))
}
