//! What fuzz targets reach of this crate beside its users.

use kevel_model::{Descriptor, Digest};

use crate::document::{ImageConfig, Index, Manifest};

/// What is found in a document under each name that a registry can give it: manifests, layers, chain ids.
pub fn documents(body: &[u8]) -> [Option<usize>; 3] {
    let announced = |kind: &str| Descriptor::new(kind, Digest::sha256(body), body.len() as u64);
    let index = announced("application/vnd.oci.image.index.v1+json");
    let manifest = announced("application/vnd.docker.distribution.manifest.v2+json");
    let config = announced("application/vnd.oci.image.config.v1+json");
    let manifests = Index::parse(&index, body).ok().map(|index| index.manifests.len());
    let layers = Manifest::parse(&manifest, body).ok().map(|manifest| {
        assert_eq!(manifest.children().count(), manifest.layers.len() + 1, "every layer and the config are content");
        let _ = manifest.is_image();
        manifest.layers.len()
    });
    let chain = ImageConfig::parse(&config, body).ok().and_then(|image| {
        let layers = image.rootfs.diff_ids.len();
        assert!(image.chain_ids(&config, layers + 1).is_err(), "a layer more than there are diff ids");
        image.chain_ids(&config, layers).ok().map(|ids| ids.len())
    });
    [manifests, layers, chain]
}
