//! The parts of an OCI image's documents that the CRI reads.

use std::collections::BTreeMap;

use kevel_model::{Descriptor, Digest, Platform, media_type};
use serde::Deserialize;

/// An index of images.
#[derive(Debug, Deserialize)]
pub(crate) struct IndexDocument {
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// An image's manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    /// Its own, and those of the indexes that led to it.
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Whether this is an image, and not some other artifact.
    pub(crate) fn is_image(&self) -> bool {
        media_type::is_config(&self.config.media_type)
            && self.layers.iter().all(|layer| media_type::is_layer(&layer.media_type))
    }
}

/// An image's config.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigDocument {
    pub(crate) config: Option<ImageConfig>,
    pub(crate) rootfs: RootFs,
    #[serde(flatten)]
    pub(crate) platform: PlatformFields,
}

/// The platform in a config, all optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PlatformFields {
    architecture: String,
    os: String,
    variant: String,
}

impl PlatformFields {
    /// Whether the image runs here; one that does not say is believed to.
    pub(crate) fn is_host(&self) -> bool {
        let platform = Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
            ..Platform::default()
        };
        self.os.is_empty() || Platform::host().matches(&platform)
    }
}

/// The layers of the root file system, uncompressed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<Digest>,
}

/// How the image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ImageConfig {
    pub(crate) user: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) volumes: BTreeMap<String, serde_json::Value>,
    pub(crate) working_dir: String,
    pub(crate) stop_signal: String,
}

/// Go writes `null` for what is empty.
fn nullable<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl ImageConfig {
    /// As the spec crate takes it.
    pub(crate) fn for_spec(&self) -> kevel_cri_spec::ImageConfig {
        kevel_cri_spec::ImageConfig {
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: self.env.clone(),
            working_dir: self.working_dir.clone(),
        }
    }
}

/// The name of the snapshot that holds all layers: each layer's digest hashed with everything below it (OCI image
/// specification, config.md, "Layer ChainID").
pub(crate) fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let mut layers = diff_ids.iter();
    let first = layers.next()?.clone();
    Some(layers.fold(first, |below, layer| Digest::sha256(format!("{below} {layer}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes() {
        let text = r#"{"os":"linux","architecture":"amd64","config":{"Env":null,"Cmd":["a"],"User":"1:2","Volumes":{"/v":{}},
            "StopSignal":"SIGINT"},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let document: ConfigDocument = serde_json::from_str(text).unwrap();
        let config = document.config.unwrap();
        assert_eq!((config.cmd.len(), config.env.len(), config.user.as_str()), (1, 0, "1:2"));
        assert!(config.volumes.contains_key("/v"));
        let empty: ConfigDocument = serde_json::from_str("{}").unwrap();
        assert!(empty.platform.is_host() && chain_id(&empty.rootfs.diff_ids).is_none());
    }

    #[test]
    fn chains() {
        let (a, b) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
        assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
        let two = Digest::sha256(format!("{a} {b}").as_bytes());
        assert_eq!(chain_id(&[a, b]), Some(two));
    }
}
