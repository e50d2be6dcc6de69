//! `io.containerd.cri.v1.images`.

use std::sync::Arc;

use kevel_contract::{event::Events, metadata::Metadata, transfer::TransferService};
use kevel_plugin::{InitContext, InitError, Kind, One, Plugin, deps};

use super::{ROOT, property};
use crate::{Images, config::ImagesConfig, image::ImageParts};

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
        cx.export("RegistryConfigPath", config.registry.config_path.clone());
        let parts = ImageParts {
            images: deps.metadata.images.clone(),
            content: deps.metadata.content.clone(),
            snapshotters: deps.metadata.snapshotters.clone(),
            transfer: deps.transfer.0,
            events: deps.events.0,
            config,
            root: property(&cx, ROOT)?,
        };
        let images = Images::new(parts).await.map_err(InitError::failed)?;
        let following = tokio::spawn(images.clone().follow());
        cx.on_close(move || async move { following.abort() });
        Ok(images)
    }
}
