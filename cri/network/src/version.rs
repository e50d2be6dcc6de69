//! Versions of the CNI specification: parsing, order, and which ones this runtime speaks.

use std::fmt;

/// A version of the CNI specification, as written in `cniVersion`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecVersion {
    major: u16,
    minor: u16,
    patch: u16,
}

impl SpecVersion {
    /// The first version; also what an absent `cniVersion` means.
    pub const V0_1_0: Self = Self::new(0, 1, 0);
    /// The last version whose results have `ip4` and `ip6`.
    pub const V0_2_0: Self = Self::new(0, 2, 0);
    /// The first version with `ips`, `interfaces` and chains.
    pub const V0_3_0: Self = Self::new(0, 3, 0);
    /// A correction of the text of 0.3.0.
    pub const V0_3_1: Self = Self::new(0, 3, 1);
    /// The first version with CHECK, and with the previous result on DEL.
    pub const V0_4_0: Self = Self::new(0, 4, 0);
    /// The first version whose `ips` have no `version`.
    pub const V1_0_0: Self = Self::new(1, 0, 0);
    /// The first version with STATUS and GC.
    pub const V1_1_0: Self = Self::new(1, 1, 0);
    /// The newest version that this runtime speaks.
    pub const CURRENT: Self = Self::V1_1_0;
    /// Every version that this runtime speaks, oldest first.
    pub const SUPPORTED: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Parses `major.minor.patch`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(number);
        let version = Self::new(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }

    /// Whether this runtime speaks the version.
    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// As it is written, so that lists of versions are readable in errors.
impl fmt::Debug for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `u16::from_str` would also take a leading plus sign.
fn number(part: &str) -> Option<u16> {
    if part.bytes().all(|b| b.is_ascii_digit()) { part.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_three_numbers_and_nothing_else() {
        for version in SpecVersion::SUPPORTED {
            assert_eq!(SpecVersion::parse(&version.to_string()), Some(version));
        }
        for bad in ["", "1", "1.0", "1.0.0.0", "1.0.x", "v1.0.0", "+1.0.0", "1..0", " 1.0.0", "1.0.0-rc1", "99999.0.0"]
        {
            assert_eq!(SpecVersion::parse(bad), None, "{bad}");
        }
        assert!(SpecVersion::V0_3_1 < SpecVersion::V0_4_0);
        assert!(!SpecVersion::new(0, 5, 0).is_supported());
    }
}
