//! From the image store's records to what the CRI knows of an image.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use kevel_contract::{content::Blob, image::Image as Record};
use kevel_model::{Descriptor, Digest, Error, Filters, Platform, Result, media_type};
use kevel_proto::{any, containerd::services::images::v1 as events};
use serde::de::DeserializeOwned;

use super::{
    ArtifactFile, Image, ImageIndex, Images, PINNED,
    config::{ConfigDocument, ImageConfig, IndexDocument, Manifest, chain_id},
};

/// The largest document that is read; registries refuse manifests of 4 MiB.
const DOCUMENT: u64 = 8 << 20;
/// The annotation that says which file a blob of an artifact is.
const TITLE: &str = "org.opencontainers.image.title";
/// Annotations that name the container whose checkpoint an image is: CRI-O's, which containerd knows, too, and checkpointctl's.
const CHECKPOINT: [&str; 2] = ["io.kubernetes.cri-o.annotations.checkpoint.name", "org.criu.checkpoint.container.name"];
/// Indexes within indexes that are followed.
const DEPTH: usize = 4;

impl Images {
    /// The image of that identifier or reference.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Image>> {
        let short: String = text.chars().take(600).collect();
        self.read_index(|index| index.find(text))
            .ok_or_else(|| Error::not_found(format!("image {short:?} is not here")))
    }

    /// Reads every record of the store into the index.
    pub(super) async fn load(&self) -> Result<()> {
        let removals = self.read_index(ImageIndex::removals);
        let records = self.images.list(&self.scope, &Filters::default()).await?;
        let read = futures::stream::iter(records).map(|record| async move {
            let name = record.name.clone();
            (name, self.read(&record).await)
        });
        let mut read = read.buffer_unordered(16);
        while let Some((name, image)) = read.next().await {
            match image {
                Ok(image) => {
                    if !self.change_index(|index| index.name_since(removals, &name, image)) {
                        self.refresh(&name).await;
                    }
                }
                Err(error) => tracing::warn!(image = name, error = error.chain(), "image is not usable"),
            }
        }
        Ok(())
    }

    /// Follows what other clients do with images until the exchange ends.
    pub async fn follow(self: Arc<Self>) {
        loop {
            let filters = Filters::parse(&[r#"topic~="^/images/",namespace==k8s.io"#]).unwrap_or_default();
            let Ok(mut stream) = self.events.subscribe(&filters).await else { return };
            while let Some(Ok(envelope)) = stream.next().await {
                let event = prost_types::Any { type_url: envelope.event.type_url, value: envelope.event.value };
                let name = match envelope.topic.as_str() {
                    "/images/create" => any::unpack::<events::ImageCreate>(&event).map(|event| event.name),
                    "/images/update" => any::unpack::<events::ImageUpdate>(&event).map(|event| event.name),
                    "/images/delete" => any::unpack::<events::ImageDelete>(&event).map(|event| event.name),
                    _ => continue,
                };
                if let Ok(name) = name {
                    self.refresh(&name).await;
                }
            }
            // The queue ran over: read everything again, and go on.
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Err(error) = self.load().await {
                tracing::warn!(error = error.chain(), "reading images again");
            }
        }
    }

    /// Makes the index say of a name what the store says.
    pub(super) async fn refresh(&self, name: &str) {
        loop {
            // Whoever removed an image was told that it is gone: it must not come back from what was read before.
            let removals = self.read_index(ImageIndex::removals);
            match self.images.get(&self.scope, name).await {
                Ok(record) => match self.read(&record).await {
                    Ok(image) => {
                        if !self.change_index(|index| index.name_since(removals, name, image)) {
                            continue;
                        }
                    }
                    Err(error) => tracing::warn!(image = name, error = error.chain(), "image is not usable"),
                },
                Err(error) if error.is_not_found() => self.change_index(|index| index.unname(name)),
                Err(error) => tracing::warn!(image = name, error = error.chain(), "reading an image"),
            }
            return;
        }
    }

    /// What a record's documents say.
    pub(super) async fn read(&self, record: &Record) -> Result<Image> {
        let (manifest_at, manifest) = self.manifest(&record.target).await?;
        let layers: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
        let mut image = Image {
            id: manifest_at.digest.to_string(),
            names: BTreeSet::new(),
            chain_id: String::new(),
            size: manifest_at.size + manifest.config.size + layers,
            config: ImageConfig::default(),
            pinned: record.labels.get(PINNED).is_some_and(|value| value == "pinned"),
            artifact: None,
            is_checkpoint: false,
        };
        if manifest.is_image() {
            let config: ConfigDocument = self.document(&manifest.config.digest).await?;
            image.id = manifest.config.digest.to_string();
            image.chain_id = chain_id(&config.rootfs.diff_ids).map(|digest| digest.to_string()).unwrap_or_default();
            image.config = config.config.unwrap_or_default();
            image.is_checkpoint = CHECKPOINT.iter().any(|name| manifest.annotations.contains_key(*name));
        } else {
            let file = |layer: &Descriptor| ArtifactFile {
                title: layer.annotations.get(TITLE).cloned().unwrap_or_default(),
                digest: layer.digest.clone(),
            };
            image.artifact = Some(manifest.layers.iter().map(file).collect());
        }
        Ok(image)
    }

    /// A blob of an image or artifact, to be read.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Box<dyn Blob>> {
        self.content.open(&self.scope, digest).await
    }

    /// The manifest for this node, through indexes.
    async fn manifest(&self, target: &Descriptor) -> Result<(Descriptor, Manifest)> {
        let (mut at, mut above) = (target.clone(), BTreeMap::new());
        for _ in 0..DEPTH {
            if !media_type::is_index(&at.media_type) {
                let mut manifest: Manifest = self.document(&at.digest).await?;
                above.append(&mut manifest.annotations);
                return Ok((at, Manifest { annotations: above, ..manifest }));
            }
            let mut index: IndexDocument = self.document(&at.digest).await?;
            above.append(&mut index.annotations);
            at = self.best(&at.digest, index.manifests).await?;
        }
        Err(Error::data_loss(format!("image {}: indexes within indexes", target.digest)))
    }

    /// The entry that runs here best; one that does not say its platform is looked into.
    async fn best(&self, index: &Digest, entries: Vec<Descriptor>) -> Result<Descriptor> {
        let host = Platform::host();
        let mut ranked = Vec::new();
        for entry in entries {
            let rank = match &entry.platform {
                Some(platform) => host.rank(platform),
                None if media_type::is_manifest(&entry.media_type) => self.unsaid(&entry).await,
                None => Some(200),
            };
            ranked.extend(rank.map(|rank| (rank, entry)));
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        let best = ranked.into_iter().next();
        best.map(|(_, entry)| entry).ok_or_else(|| Error::not_found(format!("image {index}: nothing in it for {host}")))
    }

    async fn unsaid(&self, entry: &Descriptor) -> Option<u8> {
        let manifest: Manifest = self.document(&entry.digest).await.ok()?;
        if !manifest.is_image() {
            return Some(150); // for any node, after what is for this one
        }
        let config: ConfigDocument = self.document(&manifest.config.digest).await.ok()?;
        config.platform.is_host().then_some(100)
    }

    async fn document<T: DeserializeOwned>(&self, digest: &Digest) -> Result<T> {
        let data = self.content.read(&self.scope, digest, DOCUMENT).await?;
        serde_json::from_slice(&data)
            .map_err(|error| Error::data_loss(format!("reading image document {digest}")).with_source(error))
    }
}
