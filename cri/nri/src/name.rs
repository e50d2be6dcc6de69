//! What plugins are called: two digits, a dash, a name.

/// The longest name; it becomes a label of metrics.
const LONGEST: usize = 128;

/// What is wrong with a plugin's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    /// The index is not two digits.
    #[error("plugin index {0:?} is not two digits")]
    Index(String),
    /// The name is empty, too long, or has other characters than letters, digits, `-`, `_`, `.` and `+`.
    #[error("plugin name {0:?} is empty, longer than {LONGEST}, or has other characters than letters, digits and -_.+")]
    Name(String),
    /// There is no dash.
    #[error("{0:?} is not an index, a dash and a name")]
    Form(String),
}

/// Checks what a plugin registers as.
pub(crate) fn check(index: &str, name: &str) -> Result<(), Wrong> {
    if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Index(index.chars().take(LONGEST).collect()));
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if name.is_empty() || name.len() > LONGEST || !name.bytes().all(known) {
        return Err(Wrong::Name(name.chars().take(LONGEST).collect()));
    }
    Ok(())
}

/// Index and name of a plugin's file.
pub(crate) fn parse(file: &str) -> Result<(&str, &str), Wrong> {
    let (index, name) = file.split_once('-').ok_or_else(|| Wrong::Form(file.chars().take(LONGEST).collect()))?;
    check(index, name)?;
    Ok((index, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (file, expected) in [
            ("00-logger", Some(("00", "logger"))),
            ("99-a-b_c.d+e", Some(("99", "a-b_c.d+e"))),
            ("0-logger", None),
            ("000-logger", None),
            ("0x-logger", None),
            ("logger", None),
            ("10-", None),
            ("10-a b", None),
            ("10-a/b", None),
            ("", None),
        ] {
            assert_eq!(parse(file).ok(), expected, "{file:?}");
        }
        assert!(check("10", &"a".repeat(129)).is_err());
    }
}
