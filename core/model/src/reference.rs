//! Image references: `registry/repository:tag@digest`, with Docker's short forms.

use std::fmt;

use crate::{Digest, Error};

/// A complete image reference: always a registry and a repository, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a string is not an image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing there, or longer than 512 bytes.
    #[error("image reference is empty or too long")]
    Length,
    /// The registry is not host[:port].
    #[error("image reference {0:?}: registry is not host[:port]")]
    Registry(String),
    /// The repository has characters or a shape that none has.
    #[error("image reference {0:?}: repository must be lower-case words joined by '/', '.', '_' or '-'")]
    Repository(String),
    /// The tag has characters that none has.
    #[error("image reference {0:?}: tag must be at most 128 letters, digits, '_', '.' or '-'")]
    Tag(String),
    /// What follows `@` is no digest.
    #[error("image reference {0:?}: {1}")]
    Digest(String, crate::DigestError),
    /// Neither tag nor digest, where one is needed.
    #[error("image reference {0:?} has neither tag nor digest")]
    NoObject(String),
}

impl From<ReferenceError> for Error {
    fn from(error: ReferenceError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

const DOCKER: &str = "docker.io";
/// The longest reference, in bytes.
const MAX: usize = 512;
/// The longest repository, in bytes.
const MAX_REPOSITORY: usize = 255;

impl Reference {
    /// Parses what a user types: `busybox` means `docker.io/library/busybox:latest`. A reference by digest alone gets no
    /// tag.
    pub fn familiar(text: &str) -> Result<Self, ReferenceError> {
        let (registry, rest) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => (DOCKER, text),
        };
        let registry = if registry == "index.docker.io" { DOCKER } else { registry };
        let mut parsed = Self::parts(text, registry, rest)?;
        if registry == DOCKER && !parsed.repository.contains('/') {
            parsed.repository = format!("library/{}", parsed.repository);
        }
        if parsed.tag.is_none() && parsed.digest.is_none() {
            parsed.tag = Some("latest".to_owned());
        }
        // What is added may make it too long.
        match parsed.repository.len() > MAX_REPOSITORY || parsed.to_string().len() > MAX {
            true => Err(ReferenceError::Length),
            false => Ok(parsed),
        }
    }

    /// Parses a complete reference, nothing added: registry, repository, and a tag or digest.
    pub fn complete(text: &str) -> Result<Self, ReferenceError> {
        let (registry, rest) = text.split_once('/').ok_or_else(|| ReferenceError::Registry(text.to_owned()))?;
        let parsed = Self::parts(text, registry, rest)?;
        if parsed.tag.is_none() && parsed.digest.is_none() {
            return Err(ReferenceError::NoObject(text.to_owned()));
        }
        Ok(parsed)
    }

    fn parts(text: &str, registry: &str, rest: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() || text.len() > MAX {
            return Err(ReferenceError::Length);
        }
        if !is_registry(registry) {
            return Err(ReferenceError::Registry(text.to_owned()));
        }
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|error| ReferenceError::Digest(text.to_owned(), error))?))
            }
            None => (rest, None),
        };
        let (repository, tag) = match name.split_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => return Err(ReferenceError::Tag(text.to_owned())),
            None => (name, None),
        };
        if !is_repository(repository) {
            return Err(ReferenceError::Repository(text.to_owned()));
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag, digest })
    }

    /// `host[:port]` of the registry, as it stands in the reference.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn object(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Registry and repository without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository at a digest, without a tag: `registry/repository@sha256:…`.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
                return false;
            }
            ("v6", port.strip_prefix(':').or(if port.is_empty() { None } else { Some("x") }))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // What parses as a number may have a plus sign.
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_repository(text: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    // Between words: one '.', one or two '_', any number of '-'.
    let component = |component: &str| {
        let mut rest = component;
        loop {
            let end = rest.find(['.', '_', '-']).unwrap_or(rest.len());
            if !word(&rest[..end]) {
                return false;
            }
            rest = &rest[end..];
            if rest.is_empty() {
                return true;
            }
            let dashes = rest.len() - rest.trim_start_matches('-').len();
            let skip = if dashes > 0 {
                dashes
            } else if rest.starts_with("__") {
                2
            } else {
                1
            };
            rest = &rest[skip..];
        }
    };
    text.len() <= MAX_REPOSITORY && text.split('/').all(component)
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn familiar_names_become_complete() {
        let digest = Digest::sha256(b"x");
        let check = |text: &str, want: &str| assert_eq!(Reference::familiar(text).unwrap().to_string(), want);
        check("busybox", "docker.io/library/busybox:latest");
        check("busybox:1.36", "docker.io/library/busybox:1.36");
        check("me/app", "docker.io/me/app:latest");
        check("localhost/app", "localhost/app:latest");
        check("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c");
        check("[::1]:5000/a:c", "[::1]:5000/a:c");
        check(&format!("gcr.io/a@{digest}"), &format!("gcr.io/a@{digest}"));
        check(&format!("gcr.io/a:t@{digest}"), &format!("gcr.io/a:t@{digest}"));
        check("index.docker.io/library/a__b:x", "docker.io/library/a__b:x");
    }

    #[test]
    fn refuses_what_no_registry_serves() {
        for bad in [
            "",
            "A",
            "a:",
            "a:-",
            "a//b",
            "/a",
            "a/",
            "a@sha256:00",
            "gcr.io/A",
            "gcr.io/a:b:c",
            "gcr.io/..",
            "h:0/a",
            "h:99999/a",
            "h:+80/a",
            "gcr.io/a_-b",
            "a b",
            "gcr.io/a:\u{e4}",
            "[::1/a",
            "[]:80/a",
            "[::1]:+80/a",
        ] {
            assert!(Reference::familiar(bad).is_err(), "{bad:?}");
        }
        let long = "a".repeat(250);
        assert!(Reference::familiar(&format!("gcr.io/{long}")).is_ok());
        assert_eq!(Reference::familiar(&long), Err(ReferenceError::Length), "with \"library/\" it is too long");
        let hosts = [long.as_str(); 2].join(".");
        assert_eq!(Reference::familiar(&format!("{hosts}/abcd")), Err(ReferenceError::Length), "with \":latest\", too");
        assert!(Reference::complete("gcr.io/a").is_err());
        assert!(Reference::complete("busybox").is_err());
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(text in "\\PC{0,80}") {
            if let Ok(reference) = Reference::familiar(&text) {
                prop_assert_eq!(Reference::complete(&reference.to_string()).unwrap(), reference);
            }
        }

        #[test]
        fn plausible_round_trip(text in "[a-z0-9.:/@_-]{1,40}") {
            if let Ok(reference) = Reference::familiar(&text) {
                prop_assert_eq!(Reference::complete(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
