//! Content digests: `algorithm:hex`, as the OCI image specification writes them.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// A verified-by-syntax content digest, e.g. `sha256:9f86d0…`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Arc<str>);

/// Why a string is not a digest that Kevel can verify.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DigestError {
    /// There is no `algorithm:` in front.
    #[error("digest {0:?} has no algorithm")]
    NoAlgorithm(String),
    /// An algorithm that can't be computed here.
    #[error("digest algorithm {0:?} is not supported")]
    Algorithm(String),
    /// Not lower-case hex of the algorithm's length.
    #[error("digest {0:?} is not {1} lower-case hex characters")]
    Encoding(String, usize),
}

impl From<DigestError> for crate::Error {
    fn from(error: DigestError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

fn hex_length(algorithm: &str) -> Option<usize> {
    match algorithm {
        "sha256" => Some(64),
        "sha384" => Some(96),
        "sha512" => Some(128),
        _ => None,
    }
}

impl Digest {
    /// The sha256 digest of `data`.
    pub fn sha256(data: &[u8]) -> Self {
        Self::from_hash("sha256", &Sha256::digest(data))
    }

    /// The sha256 digest whose raw value is `hash`.
    pub fn from_sha256(hash: &[u8; 32]) -> Self {
        Self::from_hash("sha256", hash)
    }

    fn from_hash(algorithm: &str, hash: &[u8]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(algorithm.len() + 1 + hash.len() * 2);
        text.push_str(algorithm);
        text.push(':');
        for byte in hash {
            let _ = write!(text, "{byte:02x}"); // writing to a String can't fail
        }
        Self(text.into())
    }

    /// The algorithm, e.g. `sha256`.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    /// The hex part.
    pub fn encoded(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The whole digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hasher of this digest's algorithm, to verify data against it.
    pub fn hasher(&self) -> Hasher {
        match self.algorithm() {
            "sha384" => Hasher::Sha384(Sha384::new()),
            "sha512" => Hasher::Sha512(Sha512::new()),
            _ => Hasher::sha256(),
        }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(text.into()))?;
        let length = hex_length(algorithm).ok_or_else(|| DigestError::Algorithm(algorithm.into()))?;
        if hex.len() != length || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Encoding(text.into(), length));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.as_ref().to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Computes a digest over data that arrives in pieces.
#[derive(Clone)]
pub enum Hasher {
    /// sha256, the default everywhere.
    Sha256(Sha256),
    /// sha384.
    Sha384(Sha384),
    /// sha512.
    Sha512(Sha512),
}

impl Hasher {
    /// A sha256 hasher.
    pub fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    /// Adds data.
    pub fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(data),
            Self::Sha384(hasher) => hasher.update(data),
            Self::Sha512(hasher) => hasher.update(data),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_hash("sha256", &hasher.finalize()),
            Self::Sha384(hasher) => Digest::from_hash("sha384", &hasher.finalize()),
            Self::Sha512(hasher) => Digest::from_hash("sha512", &hasher.finalize()),
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::sha256()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_what_it_can_verify() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::sha256(b"").as_str(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap().encoded().len(), 64);
        for bad in ["", "sha256", "sha256:", "sha256:E3B0", "md5:00", "sha256:../../etc/passwd"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(format!("sha256:{}", "G".repeat(64)).parse::<Digest>().is_err());
    }

    #[test]
    fn hashers_agree_with_their_digest() {
        for algorithm in ["sha256", "sha384", "sha512"] {
            let sample: Digest = format!("{algorithm}:{}", "0".repeat(hex_length(algorithm).unwrap())).parse().unwrap();
            let mut hasher = sample.hasher();
            hasher.update(b"kevel");
            let digest = hasher.finish();
            assert_eq!(digest.algorithm(), algorithm);
            assert_eq!(digest.as_str().parse::<Digest>().unwrap(), digest);
        }
    }
}
