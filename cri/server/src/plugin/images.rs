//! `io.containerd.cri.v1.images`.

use std::sync::Arc;

use kevel_contract::{event::Events, metadata::Metadata, metric::Metrics, transfer::TransferService};
use kevel_plugin::{InitContext, InitError, Kind, One, Plugin, deps};

use super::{ROOT, property};
use crate::{Images, config::ImagesConfig, image::ImageParts};

const URI: &str = "io.containerd.cri.v1.images";

/// The images of the CRI: `io.containerd.cri.v1.images`.
pub enum CriImages {}

impl Kind for CriImages {
    const TYPE: &'static str = "io.containerd.cri.v1";
    type Handle = Arc<Images>;
}

deps! {
    /// What the images need.
    pub struct ImagesDeps {
        /// Image records, content, snapshotters.
        metadata: One<Metadata>,
        /// Who pulls.
        transfer: One<TransferService>,
        /// What others do with images.
        events: One<Events>,
        /// Where metrics go.
        metrics: One<Metrics>,
    }
}

/// The plugin.
pub struct ImagesPlugin;

impl Plugin for ImagesPlugin {
    type Kind = CriImages;
    const ID: &'static str = "images";
    type Config = ImagesConfig;
    type Deps = ImagesDeps;

    async fn init(cx: InitContext, config: ImagesConfig, deps: ImagesDeps) -> Result<Arc<Images>, InitError> {
        let config = prepare(&cx, config).await?;
        cx.export("RegistryConfigPath", config.registry.config_path.clone());
        cx.export("DiscardUnpackedLayers", config.discard_unpacked_layers.to_string());
        let parts = ImageParts {
            images: deps.metadata.images.clone(),
            content: deps.metadata.content.clone(),
            snapshotters: deps.metadata.snapshotters.clone(),
            garbage: deps.metadata.garbage.clone(),
            transfer: deps.transfer.0,
            events: deps.events.0,
            metrics: deps.metrics.0,
            config,
            root: property(&cx, ROOT)?,
        };
        let images = Images::new(parts).await.map_err(InitError::failed)?;
        let following = tokio::spawn(images.clone().follow());
        cx.on_close(move || async move { following.abort() });
        Ok(images)
    }
}

/// Checks the configuration, and turns what is deprecated in it into what is not.
async fn prepare(cx: &InitContext, mut config: ImagesConfig) -> Result<ImagesConfig, InitError> {
    let wrong = |message: String| InitError::Config { uri: URI.to_owned(), message };
    config.registry.check().map_err(wrong)?;
    if !["", "node"].contains(&config.image_decryption.key_model.as_str()) {
        let message = format!("image_decryption.key_model: {:?} is not \"node\"", config.image_decryption.key_model);
        return Err(wrong(message));
    }
    for key in config.registry.deprecated() {
        tracing::warn!(
            key = format!("{URI}.{key}"),
            "deprecated configuration, use registry.config_path and hosts.toml"
        );
    }
    if config.registry.has_hosts() {
        let dir = cx.state.join("certs.d");
        let (registry, to) = (config.registry.clone(), dir.clone());
        let written = tokio::task::spawn_blocking(move || registry.write(&to)).await;
        written.map_err(InitError::failed)?.map_err(InitError::failed)?;
        config.registry.config_path = dir.display().to_string();
    }
    Ok(config)
}
