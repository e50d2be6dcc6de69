//! Images: names for content.

#[cfg(feature = "suite")]
pub mod suite;

use std::{borrow::Cow, time::SystemTime};

use async_trait::async_trait;
use kevel_model::{Adaptor, Descriptor, Digest, Filters, Labels, Result, filter};
use kevel_plugin::Kind;

use crate::{Scope, call::handle};

/// The image service: `io.containerd.service.v1.images-service`.
pub enum ImageService {}

impl Kind for ImageService {
    const TYPE: &'static str = "io.containerd.service.v1";
    type Handle = ImageStore;
}

/// A named image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The name, usually a complete reference.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What it names: an index or a manifest.
    pub target: Descriptor,
    /// When it was made; set by the store.
    pub created_at: SystemTime,
    /// When it changed last; set by the store.
    pub updated_at: SystemTime,
}

impl Image {
    /// An image to create.
    pub fn new(name: impl Into<String>, target: Descriptor, labels: Labels) -> Self {
        let epoch = SystemTime::UNIX_EPOCH;
        Self { name: name.into(), labels, target, created_at: epoch, updated_at: epoch }
    }
}

impl Adaptor for Image {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (name, []) if name == "name" => Some(self.name.as_str().into()),
            (target, rest) if target == "target" => match rest {
                [digest] if digest == "digest" => Some(self.target.digest.as_str().into()),
                [kind] if kind == "mediatype" => Some(self.target.media_type.as_str().into()),
                _ => None,
            },
            (labels, key) if labels == "labels" => filter::map_field(&self.labels, key),
            (annotations, key) if annotations == "annotations" => filter::map_field(&self.target.annotations, key),
            _ => None,
        }
    }
}

/// How to delete an image.
#[derive(Clone, Debug, Default)]
pub struct Delete {
    /// Forget what only it kept before answering; storage is freed soon after.
    pub sync: bool,
    /// Delete only if the image still names this.
    pub target: Option<Digest>,
}

/// An image store, for whoever writes one. `update` changes what its field paths name (`labels`, `labels.KEY`,
/// `target`, `annotations.KEY`) or, without any, labels and target; it answers the stored image.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// One image by name.
    async fn get(&self, scope: &Scope, name: &str) -> Result<Image>;
    /// All images that match.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Image>>;
    /// Adds an image.
    async fn create(&self, scope: &Scope, image: Image) -> Result<Image>;
    /// Changes an image.
    async fn update(&self, scope: &Scope, image: Image, fieldpaths: &[String]) -> Result<Image>;
    /// Removes an image.
    async fn delete(&self, scope: &Scope, name: &str, delete: Delete) -> Result<()>;
}

handle! {
    /// An image store, for whoever uses one.
    ImageStore over Backend {
        /// One image by name.
        fn get(scope: &Scope, name: &str) -> Image;
        /// All images that match.
        fn list(scope: &Scope, filters: &Filters) -> Vec<Image>;
        /// Adds an image.
        fn create(scope: &Scope, image: Image) -> Image;
        /// Changes an image.
        fn update(scope: &Scope, image: Image, fieldpaths: &[String]) -> Image;
        /// Removes an image.
        fn delete(scope: &Scope, name: &str, delete: Delete) -> ();
    }
}
