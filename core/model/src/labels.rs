//! Labels and their limits.

use std::collections::BTreeMap;

use crate::Error;

/// Labels of an object, in key order.
pub type Labels = BTreeMap<String, String>;

/// A key and its value together may be this long, in bytes; containerd's limit.
const MAX_SIZE: usize = 4096;

/// Why labels were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LabelsError {
    /// A label without a key.
    #[error("label key is empty")]
    EmptyKey,
    /// Key and value together are too long.
    #[error("label {key:?}: key and value are {size} bytes, more than {MAX_SIZE}")]
    TooLong {
        /// The start of the key.
        key: String,
        /// The size of key and value together.
        size: usize,
    },
}

impl From<LabelsError> for Error {
    fn from(error: LabelsError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Refuses labels that no store takes.
pub fn check_labels(labels: &Labels) -> Result<(), LabelsError> {
    for (key, value) in labels {
        if key.is_empty() {
            return Err(LabelsError::EmptyKey);
        }
        let size = key.len() + value.len();
        if size > MAX_SIZE {
            return Err(LabelsError::TooLong { key: key.chars().take(64).collect(), size });
        }
    }
    Ok(())
}

/// Applies an update to labels by field paths, as every `Update` call does: no paths replaces all labels, `labels`
/// replaces all labels, `labels.KEY` sets one, or removes it where the update has no value or an empty one.
///
/// Paths that don't speak of labels are refused; strip what else the object lets a caller change before.
pub fn apply_label_fieldpaths(current: &mut Labels, update: &Labels, fieldpaths: &[String]) -> Result<(), Error> {
    if fieldpaths.is_empty() {
        current.clone_from(update);
        return Ok(());
    }
    for path in fieldpaths {
        if path == "labels" {
            current.clone_from(update);
            continue;
        }
        let Some(key) = path.strip_prefix("labels.") else {
            return Err(Error::invalid_argument(format!("cannot update field {path:?}")));
        };
        match update.get(key).filter(|value| !value.is_empty()) {
            Some(value) => current.insert(key.to_owned(), value.clone()),
            None => current.remove(key),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn fieldpaths_change_only_what_they_name() {
        let check = |paths: &[&str], want: &[(&str, &str)]| {
            let mut current = labels(&[("a", "1"), ("b.c", "2")]);
            let update = labels(&[("a", "9"), ("d", "4")]);
            let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
            apply_label_fieldpaths(&mut current, &update, &paths).unwrap();
            assert_eq!(current, labels(want), "{paths:?}");
        };
        check(&[], &[("a", "9"), ("d", "4")]);
        check(&["labels"], &[("a", "9"), ("d", "4")]);
        check(&["labels.a"], &[("a", "9"), ("b.c", "2")]);
        check(&["labels.b.c", "labels.d"], &[("a", "1"), ("d", "4")]);
        let refused = apply_label_fieldpaths(&mut Labels::new(), &Labels::new(), &["size".to_owned()]);
        assert_eq!(refused.unwrap_err().to_string(), "cannot update field \"size\"");
    }

    #[test]
    fn limits() {
        assert_eq!(check_labels(&labels(&[("a", "b")])), Ok(()));
        assert_eq!(check_labels(&labels(&[("", "b")])), Err(LabelsError::EmptyKey));
        let long = "x".repeat(4096);
        assert!(matches!(check_labels(&labels(&[("k", &long)])), Err(LabelsError::TooLong { size: 4097, .. })));
    }
}
