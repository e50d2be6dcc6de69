//! A SELinux label, taken apart: `user:role:type:level`, the level being optional. Pure.

use std::fmt;

/// The parts of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Context {
    /// The SELinux user.
    pub(crate) user: String,
    /// The role; `object_r` for files.
    pub(crate) role: String,
    /// The type, which most of a policy is about.
    pub(crate) kind: String,
    /// Sensitivity and categories; empty where the policy has none.
    pub(crate) level: String,
}

impl Context {
    /// Takes a label apart; `None` when it is not one.
    pub(crate) fn parse(label: &str) -> Option<Self> {
        let mut parts = label.splitn(4, ':').map(str::to_owned);
        let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = [&user, &role, &kind].iter().all(|part| !part.is_empty());
        whole.then(|| Self { user, role, kind, level: parts.next().unwrap_or_default() })
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.role, self.kind)?;
        if self.level.is_empty() { Ok(()) } else { write!(f, ":{}", self.level) }
    }
}

/// Whether a text is a level: `s0`, `s0-s3`, each with categories such as `:c1,c2.c5`.
pub(crate) fn is_level(text: &str) -> bool {
    let (sensitivity, categories) = text.split_once(':').map_or((text, None), |(a, b)| (a, Some(b)));
    let single = |text: &str| {
        text.strip_prefix('s').is_some_and(|digit| digit.len() == 1 && digit.bytes().all(|b| b.is_ascii_digit()))
    };
    let category = |text: &str| {
        let digits = text.strip_prefix('c').unwrap_or_default();
        (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let range = |text: &str| text.split_once('.').map_or_else(|| category(text), |(a, b)| category(a) && category(b));
    sensitivity.split_once('-').map_or_else(|| single(sensitivity), |(a, b)| single(a) && single(b))
        && categories.is_none_or(|list| list.split(',').all(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_apart_and_together() {
        for label in ["system_u:system_r:container_t:s0:c1,c2", "u:r:t", "u:r:t:s0"] {
            assert_eq!(Context::parse(label).unwrap().to_string(), label);
        }
        assert_eq!(Context::parse("u:r:t:s0:c1").unwrap().level, "s0:c1");
        for bad in ["", "u", "u:r", "::", "u::t:s0"] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn levels() {
        for good in ["s0", "s0-s3", "s0:c1", "s0:c0,c1023", "s0-s0:c0.c1023", "s0:c1.c3,c5"] {
            assert!(is_level(good), "{good}");
        }
        for bad in
            ["", "s", "s10", "s0:", "s0:c", "s0:c12345", "s0:c1,", "0", "s0 ", "s0:c1.", "s0-", "s0:c1-c2", "s0\n"]
        {
            assert!(!is_level(bad), "{bad}");
        }
    }
}
