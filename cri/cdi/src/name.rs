//! Qualified names: `vendor.com/class=device`.

use std::fmt;

use crate::error::{Error, Result};

/// A device by its qualified name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Vendor and class, such as `vendor.com/gpu`.
    pub kind: String,
    /// The device among those of its kind.
    pub name: String,
}

impl Device {
    /// Reads a qualified name.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason| Error::Name { device: text.chars().take(300).collect(), reason };
        let (kind, name) = text.split_once('=').ok_or_else(|| wrong("not vendor/class=device"))?;
        check_kind(kind).map_err(wrong)?;
        check_name(name).map_err(wrong)?;
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}={}", self.kind, self.name)
    }
}

/// Vendor and class of a spec, by the letters that CDI allows.
pub(crate) fn check_kind(kind: &str) -> Result<(), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("no / between vendor and class")?;
    word(vendor, "_-.", true).then_some(()).ok_or("the vendor is not made of letters, digits, _ - and .")?;
    word(class, "_-", true).then_some(()).ok_or("the class is not made of letters, digits, _ and -")
}

/// The name of a device among those of its kind.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    word(name, "_-.:", false).then_some(()).ok_or("the device is not made of letters, digits, _ - . and :")
}

/// Letters, digits and, but not at the ends, marks.
fn word(text: &str, marks: &str, letter_first: bool) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    let first = |c: char| if letter_first { c.is_ascii_alphabetic() } else { c.is_ascii_alphanumeric() };
    text.starts_with(first) && text.ends_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for good in ["vendor.com/gpu=0", "a/b=c", "nvidia.com/gpu=GPU-1:2.3", "v_x-y/c-d=all"] {
            assert_eq!(Device::parse(good).unwrap().to_string(), good);
        }
        for bad in
            ["", "gpu", "vendor.com/gpu", "vendor.com=0", "1v/c=d", "v/1c=d", "v/c.d=e", "v/c=", "v/c=-x", "v./c=d"]
        {
            let error = Device::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("CDI device {bad:?}: ")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_written(text in "[a-z./=:0-9-]{0,20}") {
            if let Ok(device) = Device::parse(&text) {
                prop_assert_eq!(device.to_string(), text);
            }
        }
    }
}
