//! The documents that an image is made of, as much of them as transfers read.

use kevel_model::{Descriptor, Digest, Error, Platform, Result, media_type};
use serde::Deserialize;

/// No index lists more manifests, no manifest more layers.
const MAX_CHILDREN: usize = 4096;

/// An index or manifest list.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// A manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// An image config.
#[derive(Debug, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(flatten)]
    pub(crate) platform: Platform,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

/// The layers by diff id, lowest first.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<Digest>,
}

/// Just enough to see what a document claims to be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

fn parse<'a, T: Deserialize<'a>>(what: &str, descriptor: &Descriptor, body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| Error::invalid_argument(format!("{what} {}: {error}", descriptor.digest)))
}

/// A document that is an index in one reader's eyes and a manifest in another's would be two images under one digest.
fn check_claim(what: &str, descriptor: &Descriptor, body: &[u8]) -> Result<()> {
    let claim: Claim = parse(what, descriptor, body)?;
    let wrong = |why: String| Err(Error::invalid_argument(format!("{what} {}: {why}", descriptor.digest)));
    match claim.media_type.filter(|kind| !kind.is_empty() && *kind != descriptor.media_type) {
        Some(kind) => wrong(format!("says that it is {kind:?} where {:?} was announced", descriptor.media_type)),
        None if claim.manifests.is_some() && claim.layers.is_some() => wrong("has both manifests and layers".into()),
        None => Ok(()),
    }
}

impl Index {
    pub(crate) fn parse(descriptor: &Descriptor, body: &[u8]) -> Result<Self> {
        check_claim("index", descriptor, body)?;
        let index: Self = parse("index", descriptor, body)?;
        if index.manifests.len() > MAX_CHILDREN {
            let count = index.manifests.len();
            return Err(Error::invalid_argument(format!("index {} lists {count} manifests", descriptor.digest)));
        }
        Ok(index)
    }
}

impl Manifest {
    pub(crate) fn parse(descriptor: &Descriptor, body: &[u8]) -> Result<Self> {
        check_claim("manifest", descriptor, body)?;
        let mut manifest: Self = parse("manifest", descriptor, body)?;
        if manifest.layers.len() > MAX_CHILDREN {
            let count = manifest.layers.len();
            return Err(Error::invalid_argument(format!("manifest {} lists {count} layers", descriptor.digest)));
        }
        // Old registries say "octet-stream" of Docker's configs.
        if manifest.config.media_type == "application/octet-stream"
            && descriptor.media_type == media_type::DOCKER_MANIFEST
        {
            manifest.config.media_type = media_type::DOCKER_CONFIG.to_owned();
        }
        Ok(manifest)
    }

    /// Everything that the manifest names.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Whether this is an image that can be unpacked, and not some other artifact.
    pub(crate) fn is_image(&self) -> bool {
        media_type::is_config(&self.config.media_type)
            && self.layers.iter().all(|layer| media_type::is_layer(&layer.media_type))
    }
}

impl ImageConfig {
    pub(crate) fn parse(descriptor: &Descriptor, body: &[u8]) -> Result<Self> {
        parse("image config", descriptor, body)
    }

    /// The chain ids of the layers, lowest first; the manifest must have as many layers.
    pub(crate) fn chain_ids(&self, config: &Descriptor, layers: usize) -> Result<Vec<Digest>> {
        let ids = &self.rootfs.diff_ids;
        if ids.len() != layers {
            let message = format!("has {} diff ids where the manifest has {layers} layers", ids.len());
            return Err(Error::invalid_argument(format!("image config {} {message}", config.digest)));
        }
        let mut chain: Vec<Digest> = Vec::with_capacity(ids.len());
        for id in ids {
            chain.push(match chain.last() {
                None => id.clone(),
                Some(parent) => Digest::sha256(format!("{parent} {id}").as_bytes()),
            });
        }
        Ok(chain)
    }
}
