//! Image verifiers: whether an image may be pulled, asked after its name is resolved and before anything is fetched.

use async_trait::async_trait;
use kevel_model::{Descriptor, Result};
use kevel_plugin::Kind;

use crate::call::handle;

/// Image verifiers by name: `io.containerd.image-verifier.v1`.
pub enum ImageVerifiers {}

impl Kind for ImageVerifiers {
    const TYPE: &'static str = "io.containerd.image-verifier.v1";
    type Handle = ImageVerifier;
}

/// What a verifier thinks of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the image may be used.
    pub ok: bool,
    /// Why, in the verifier's words.
    pub reason: String,
}

/// A verifier, for whoever writes one. A verifier that can't tell answers an error, and the image is not used.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Judges the image that `name` stands for.
    async fn verify(&self, name: &str, target: &Descriptor) -> Result<Judgement>;
}

handle! {
    /// An image verifier, for whoever asks one.
    ImageVerifier over Backend {
        /// Judges an image.
        fn verify(name: &str, target: &Descriptor) -> Judgement;
    }
}
