//! Which container ids, network names, interface names and plugin types are allowed.

use crate::field::FieldError;

/// The kernel's `IFNAMSIZ` minus the terminating zero.
const MAX_INTERFACE: usize = 15;
/// Network names and container ids become one file name together, which may have 255 bytes.
const MAX_NAME: usize = 120;

/// CNI spec 1.1, section 2: alphanumeric first, then alphanumerics, `_`, `.`, `-`.
pub(crate) fn check_container_id(field: &str, id: &str) -> Result<(), FieldError> {
    check_name(field, id)
}

/// CNI spec 1.1, section 1, `name`: the same alphabet as container ids.
pub(crate) fn check_network(field: &str, name: &str) -> Result<(), FieldError> {
    check_name(field, name)
}

/// The kernel's rule for interface names (`dev_valid_name`).
pub(crate) fn check_interface(field: &str, name: &str) -> Result<(), FieldError> {
    let reason = if name.is_empty() {
        "empty".to_owned()
    } else if name.len() > MAX_INTERFACE {
        format!("longer than {MAX_INTERFACE} bytes")
    } else if name == "." || name == ".." {
        format!("{name:?} is not an interface name")
    } else if name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        "contains a slash, a colon or white space".to_owned()
    } else {
        return Ok(());
    };
    Err(FieldError::new(field, reason))
}

/// CNI spec 1.1, section 1, `type`: a file name, never a path.
pub(crate) fn check_plugin(field: &str, kind: &str) -> Result<(), FieldError> {
    let reason = if kind.is_empty() {
        "empty"
    } else if kind.len() > MAX_NAME {
        "longer than 120 bytes"
    } else if kind == "." || kind == ".." || kind.chars().any(|c| c == '/' || c == '\\' || c.is_control()) {
        "not a file name"
    } else {
        return Ok(());
    };
    Err(FieldError::new(field, reason))
}

/// One `key=value` of `CNI_ARGS`; the separators of the format cannot be quoted, so they cannot be sent.
pub(crate) fn check_arg(key: &str, value: &str) -> Result<(), FieldError> {
    let field = format!("args.{key}");
    if key.is_empty() || key.contains(['=', ';']) || key.chars().any(char::is_control) {
        return Err(FieldError::new(field, "the key is empty or contains '=', ';' or a control character"));
    }
    if value.contains(';') || value.chars().any(char::is_control) {
        return Err(FieldError::new(field, "the value contains ';' or a control character"));
    }
    Ok(())
}

fn check_name(field: &str, name: &str) -> Result<(), FieldError> {
    let first = name.bytes().next();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let reason = if name.is_empty() {
        "empty".to_owned()
    } else if name.len() > MAX_NAME {
        format!("longer than {MAX_NAME} bytes")
    } else if !first.is_some_and(|b| b.is_ascii_alphanumeric()) {
        format!("{name:?} does not start with a letter or a digit")
    } else if !name.bytes().all(allowed) {
        format!("{name:?} contains a character that is not a letter, a digit, '_', '.' or '-'")
    } else {
        return Ok(());
    };
    Err(FieldError::new(field, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let ok: &[&str] = &["a", "0", "k8s.pod_network-1", "a..b"];
        for name in ok {
            assert_eq!(check_name("id", name), Ok(()), "{name}");
        }
        for (name, error) in [
            ("", "id: empty"),
            (".hidden", "id: \".hidden\" does not start with a letter or a digit"),
            ("a/b", "id: \"a/b\" contains a character that is not a letter, a digit, '_', '.' or '-'"),
            ("ä", "id: \"ä\" does not start with a letter or a digit"),
        ] {
            assert_eq!(check_name("id", name).unwrap_err().to_string(), error);
        }
        assert!(check_name("id", &"a".repeat(121)).is_err());
    }

    #[test]
    fn interfaces() {
        assert_eq!(check_interface("ifname", "eth0"), Ok(()));
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xx", "a\n"] {
            assert!(check_interface("ifname", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plugins_and_args() {
        assert_eq!(check_plugin("type", "host-local"), Ok(()));
        for bad in ["", "..", "../evil", "a\\b", "a\0"] {
            assert!(check_plugin("type", bad).is_err(), "{bad}");
        }
        assert_eq!(check_arg("K8S_POD_NAME", "a=b"), Ok(()));
        assert!(check_arg("A=B", "x").is_err());
        assert!(check_arg("A", "x;EVIL=1").is_err());
    }
}
