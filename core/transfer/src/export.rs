//! Export: images as an OCI layout in a tar archive, with Docker's `manifest.json` for `docker load`.

use std::collections::BTreeMap;

use kevel_contract::{
    Scope,
    image::Image,
    transfer::{ArchiveSink, Export},
};
use kevel_model::{Context as _, Descriptor, Digest, Error, Platform, Result, media_type};
use serde::Serialize;

use crate::{
    Service,
    archive::Writer,
    document::{Index, Manifest},
    select,
    service::{Job, or_host},
    store,
};

/// What an archive says of an image to Docker.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Everything to write: blobs by digest, the top descriptors, and Docker's view.
#[derive(Default)]
struct Contents {
    blobs: BTreeMap<Digest, u64>,
    tops: Vec<Descriptor>,
    docker: Vec<DockerImage>,
}

impl Service {
    pub(crate) async fn export_archive(&self, scope: &Scope, sink: ArchiveSink, export: Export) -> Result<()> {
        if export.names.is_empty() {
            return Err(Error::invalid_argument("no image to export is named"));
        }
        let job = self.local_job(scope).await?;
        let mut contents = Contents::default();
        for name in &export.names {
            let image = self.shared().stores.images.get(scope, name).await?;
            let platforms = if export.all_platforms { Vec::new() } else { or_host(export.platforms.clone()) };
            job.collect(&mut contents, &image, &platforms).await.context(|| format!("reading image {name}"))?;
        }
        // All is known to be there before the first byte is written.
        for digest in contents.blobs.keys() {
            self.shared().stores.content.info(scope, digest).await?;
        }
        let mut writer = Writer::new(sink);
        writer.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).await?;
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": contents.tops,
        });
        writer.file("index.json", index.to_string().as_bytes()).await?;
        if !export.skip_docker_manifest && !contents.docker.is_empty() {
            let list = serde_json::to_vec(&contents.docker)
                .map_err(|error| Error::internal("writing manifest.json").with_source(error))?;
            writer.file("manifest.json", &list).await?;
        }
        for (digest, size) in &contents.blobs {
            job.write_blob(&mut writer, digest, *size).await.context(|| format!("writing blob {digest}"))?;
        }
        writer.finish().await
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.encoded())
}

impl Job {
    /// Notes all that an image needs. Platforms that an index offers and nobody fetched are left out, unless they are
    /// the ones that were asked for.
    async fn collect(&self, contents: &mut Contents, image: &Image, platforms: &[Platform]) -> Result<()> {
        let content = &self.shared.stores.content;
        let mut top = image.target.clone();
        top.annotations.insert("io.containerd.image.name".to_owned(), image.name.clone());
        if let Ok(reference) = kevel_model::Reference::complete(&image.name)
            && let Some(tag) = reference.tag()
        {
            top.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
        }
        contents.tops.push(top);
        let mut queue = vec![(image.target.clone(), true)];
        let mut manifests = 0;
        while let Some((descriptor, must)) = queue.pop() {
            if !must && store::find(content, self.scope(), &descriptor.digest).await?.is_none() {
                continue;
            }
            let body = store::read(content, self.scope(), &descriptor.digest).await?;
            contents.blobs.insert(descriptor.digest.clone(), descriptor.size);
            if contents.blobs.len() > 1 << 16 {
                return Err(Error::resource_exhausted("the image has more than 65536 parts"));
            }
            if media_type::is_index(&descriptor.media_type) {
                let children = Index::parse(&descriptor, &body)?.manifests;
                let all = platforms.is_empty();
                let chosen = if all { children } else { select::best(&children, platforms) };
                if chosen.is_empty() {
                    let want = select::list(platforms);
                    return Err(Error::not_found(format!("index {} has no manifest for {want}", descriptor.digest)));
                }
                queue.extend(chosen.into_iter().map(|child| (child, !all)));
                continue;
            }
            let manifest = Manifest::parse(&descriptor, &body)?;
            let missing = self.lacks(&manifest).await?;
            if let Some(missing) = missing.filter(|_| must) {
                return Err(Error::not_found(format!("content {missing} is not on this node")));
            }
            contents.blobs.extend(manifest.children().map(|child| (child.digest.clone(), child.size)));
            manifests += 1;
            if manifests == 1 && manifest.is_image() {
                contents.docker.push(DockerImage {
                    config: path(&manifest.config.digest),
                    repo_tags: Some(image.name.clone()).filter(|name| !name.contains('@')).into_iter().collect(),
                    layers: manifest.layers.iter().map(|layer| path(&layer.digest)).collect(),
                });
            }
        }
        Ok(())
    }

    async fn lacks(&self, manifest: &Manifest) -> Result<Option<Digest>> {
        for child in manifest.children() {
            if store::find(&self.shared.stores.content, self.scope(), &child.digest).await?.is_none() {
                return Ok(Some(child.digest.clone()));
            }
        }
        Ok(None)
    }

    async fn write_blob(&self, writer: &mut Writer<ArchiveSink>, digest: &Digest, size: u64) -> Result<()> {
        let blob = self.shared.stores.content.open(self.scope(), digest).await?;
        if blob.size() != size {
            return Err(Error::data_loss(format!("it has {} bytes where {size} were announced", blob.size())));
        }
        writer.begin(&path(digest), size).await?;
        let mut offset = 0;
        while offset < size {
            let piece = blob.read_at(offset, store::READ).await?;
            if piece.is_empty() {
                return Err(Error::data_loss(format!("it ends after {offset} bytes")));
            }
            offset += piece.len() as u64;
            writer.data(&piece).await?;
        }
        writer.end(size).await
    }
}
