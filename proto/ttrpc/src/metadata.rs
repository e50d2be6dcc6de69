//! Metadata: pairs of text that travel beside a request, such as the namespace of a call.

use crate::message::KeyValue;

/// Pairs of text. Keys are compared without regard to ASCII case and may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pairs: Vec<KeyValue>,
}

impl Metadata {
    /// No pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair; earlier values of the key stay. The key is sent in lower case.
    pub fn append(&mut self, key: &str, value: impl Into<String>) {
        self.pairs.push(KeyValue { key: key.to_ascii_lowercase(), value: value.into() });
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }

    /// Every pair, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str()))
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

impl From<Vec<KeyValue>> for Metadata {
    fn from(pairs: Vec<KeyValue>) -> Self {
        Self { pairs }
    }
}

impl From<Metadata> for Vec<KeyValue> {
    fn from(metadata: Metadata) -> Self {
        metadata.pairs
    }
}

impl<'a> FromIterator<(&'a str, String)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (&'a str, String)>>(pairs: I) -> Self {
        let mut metadata = Self::new();
        for (key, value) in pairs {
            metadata.append(key, value);
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_any_case_and_the_first_value_wins() {
        let metadata: Metadata = [("Namespace", "a".to_string()), ("namespace", "b".to_string())].into_iter().collect();
        assert_eq!(metadata.get("NAMESPACE"), Some("a"));
        assert_eq!(metadata.get("other"), None);
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("namespace", "a"), ("namespace", "b")]);
    }
}
