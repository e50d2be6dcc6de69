//! Platforms: what an image is built for and what a node runs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An operating system and a processor, as in OCI indexes. Values are kept as they were written; [`Platform::normalized`]
/// gives the canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH name, e.g. `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// GOOS name, e.g. `linux`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system; only Windows uses it.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features of the operating system that the image needs.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the processor, e.g. `v7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Why a string is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("platform {0:?} is not os[/architecture[/variant]]")]
pub struct PlatformError(String);

impl From<PlatformError> for crate::Error {
    fn from(error: PlatformError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl Platform {
    /// The platform that this program was built for.
    pub fn host() -> Self {
        Self {
            architecture: architecture(std::env::consts::ARCH).0.to_owned(),
            os: "linux".to_owned(),
            ..Self::default()
        }
        .normalized()
    }

    /// Canonical names: `x86_64` becomes `amd64`, `aarch64` `arm64`, and a variant that is the default goes away.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let (canonical, implied) = architecture(&self.architecture);
        let variant = if self.variant.is_empty() { implied } else { self.variant.as_str() };
        let variant = match (canonical, variant) {
            ("arm64", "8" | "v8") | ("amd64", "v1") => "",
            ("arm", "") => "v7",
            ("arm", "5" | "6" | "7" | "8") => &format!("v{variant}"),
            (_, other) => other,
        };
        Self {
            architecture: canonical.to_owned(),
            os: match self.os.to_ascii_lowercase().as_str() {
                "macos" => "darwin".to_owned(),
                other => other.to_owned(),
            },
            variant: variant.to_owned(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }

    /// How well `candidate` runs on this platform: `None` not at all, else lower is better.
    pub fn rank(&self, candidate: &Self) -> Option<u8> {
        let (want, have) = (self.normalized(), candidate.normalized());
        if want.os != have.os || want.architecture != have.architecture {
            return None;
        }
        if !have.os_features.iter().all(|feature| want.os_features.contains(feature)) {
            return None;
        }
        let level = |variant: &str| variant.trim_start_matches('v').parse::<u8>().ok();
        match (want.variant.as_str(), have.variant.as_str()) {
            (a, b) if a == b => Some(0),
            (_, "") => Some(100),
            (want, have) if matches!(self.normalized().architecture.as_str(), "arm" | "amd64") => {
                let want = level(want).unwrap_or(1);
                level(have).filter(|have| *have <= want).map(|have| want - have)
            }
            _ => None,
        }
    }

    /// Whether `candidate` runs on this platform.
    pub fn matches(&self, candidate: &Self) -> bool {
        self.rank(candidate).is_some()
    }
}

/// GOARCH name and implied variant of any common spelling.
fn architecture(name: &str) -> (&str, &str) {
    match name {
        "i386" | "i686" | "x86" => ("386", ""),
        "x86_64" | "x86-64" => ("amd64", ""),
        "aarch64" => ("arm64", ""),
        "armhf" => ("arm", "v7"),
        "armel" => ("arm", "v6"),
        "powerpc64le" => ("ppc64le", ""),
        other => (other, ""),
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Parses `os/architecture/variant`; what is missing is the host's.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let wrong = || PlatformError(text.to_owned());
        let valid = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || !parts.iter().all(|part| valid(part)) {
            return Err(wrong());
        }
        let host = Self::host();
        let known_os = |os: &str| matches!(os, "linux" | "windows" | "darwin" | "macos" | "freebsd");
        let platform = match parts.as_slice() {
            [one] if known_os(&one.to_ascii_lowercase()) => Self { os: (*one).to_owned(), ..host },
            [one] => Self { architecture: (*one).to_owned(), variant: String::new(), ..host },
            [os, rest @ ..] => Self {
                os: (*os).to_owned(),
                architecture: rest[0].to_owned(),
                variant: rest.get(1).copied().unwrap_or_default().to_owned(),
                ..Self::default()
            },
            [] => return Err(wrong()),
        };
        Ok(platform.normalized())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_normalizes() {
        let check = |text: &str, want: &str| assert_eq!(text.parse::<Platform>().unwrap().to_string(), want);
        check("linux/amd64", "linux/amd64");
        check("linux/x86_64", "linux/amd64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm", "linux/arm/v7");
        check("linux/armel", "linux/arm/v6");
        check("Linux/arm/6", "linux/arm/v6");
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranks_variants() {
        let arm7: Platform = "linux/arm/v7".parse().unwrap();
        let rank = |text: &str| arm7.rank(&text.parse().unwrap());
        assert_eq!(rank("linux/arm/v7"), Some(0));
        assert_eq!(rank("linux/arm/v6"), Some(1));
        assert_eq!(rank("linux/arm/v8"), None);
        assert_eq!(rank("linux/amd64"), None);
        assert!(Platform::host().matches(&Platform::host()));
    }
}
