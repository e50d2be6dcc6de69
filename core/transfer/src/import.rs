//! Import: an OCI layout or the output of `docker save`, read once; blobs go straight into the store.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use kevel_contract::{
    Scope,
    content::{Begin, Commit},
    image::Image,
    transfer::{Archive, Import},
};
use kevel_model::{Context as _, Descriptor, Digest, Error, Hasher, Labels, Platform, Reference, Result, media_type};
use serde::Deserialize;

use crate::{
    Service,
    archive::{Entry, Reader},
    document::{ImageConfig, Index, Manifest},
    pull::Wanted,
    service::{Job, or_host},
    store,
};

/// The largest `index.json` or `manifest.json`, in bytes.
const MAX_LIST: u64 = 8 << 20;
/// No archive has more files.
const MAX_FILES: usize = 1 << 16;

/// One image of a `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A file that is in the store now.
#[derive(Clone)]
struct Stored {
    digest: Digest,
    size: u64,
    /// The first bytes, to tell compression.
    head: Bytes,
}

/// What an archive held.
#[derive(Default)]
struct Found {
    files: HashMap<String, Stored>,
    /// Links by name.
    links: HashMap<String, String>,
    index: Option<Bytes>,
    docker: Option<Bytes>,
}

impl Service {
    pub(crate) async fn import_archive(&self, scope: &Scope, archive: Archive, import: Import) -> Result<Vec<Image>> {
        for unpack in &import.unpack {
            self.shared().snapshotter(&unpack.snapshotter)?;
        }
        let job = self.local_job(scope).await?;
        let found = job.receive(archive).await?;
        let tops = match (&found.index, &found.docker) {
            (Some(index), _) => oci_images(index, &import)?,
            (None, Some(list)) => job.docker_images(list, &found).await?,
            (None, None) => {
                let why = "the archive has neither index.json nor manifest.json";
                return Err(Error::invalid_argument(why));
            }
        };
        let mut images = Vec::new();
        for (target, mut names) in tops {
            job.take(&target, &import).await.context(|| format!("taking {}", target.digest))?;
            names.extend(import.extra_names.iter().cloned());
            names.extend(import.digest_prefix.iter().map(|prefix| format!("{prefix}@{}", target.digest)));
            if names.is_empty() && !import.name.is_empty() {
                names.insert(format!("{}@{}", import.name, target.digest));
            }
            for name in names {
                images.push(job.name_image(&name, target.clone(), import.labels.clone()).await?);
            }
        }
        if images.is_empty() {
            return Err(Error::invalid_argument("the archive names no image, and no name was given"));
        }
        Ok(images)
    }
}

/// The images of an `index.json` with their names.
fn oci_images(index: &[u8], import: &Import) -> Result<Vec<(Descriptor, BTreeSet<String>)>> {
    let itself = Descriptor::new(media_type::OCI_INDEX, Digest::sha256(index), index.len() as u64);
    let manifests = Index::parse(&itself, index).context(|| "reading index.json")?.manifests;
    let mut images: Vec<(Descriptor, BTreeSet<String>)> = Vec::new();
    for mut target in manifests {
        let full = target.annotations.remove("io.containerd.image.name");
        let tag = target.annotations.remove("org.opencontainers.image.ref.name");
        let name = full.or_else(|| match tag {
            Some(tag) if Reference::complete(&tag).is_ok() => Some(tag),
            Some(tag) if !import.name.is_empty() => Some(format!("{}:{tag}", import.name)),
            _ => None,
        });
        match images.iter_mut().find(|(other, _)| other.digest == target.digest) {
            Some((_, names)) => names.extend(name),
            None => images.push((target, name.into_iter().collect())),
        }
    }
    Ok(images)
}

impl Job {
    /// Reads the archive to its end and puts its files into the store.
    async fn receive(&self, archive: Archive) -> Result<Found> {
        let mut reader = Reader::new(archive);
        let mut found = Found::default();
        while let Some(entry) = reader.next().await? {
            if found.files.len() + found.links.len() > MAX_FILES {
                return Err(Error::resource_exhausted(format!("the archive has more than {MAX_FILES} files")));
            }
            match (entry.name.as_str(), entry.is_file) {
                ("index.json", true) => found.index = Some(reader.whole(MAX_LIST).await?),
                ("manifest.json", true) => found.docker = Some(reader.whole(MAX_LIST).await?),
                ("oci-layout" | "repositories", true) => {}
                (_, true) => {
                    let stored =
                        self.store(&mut reader, &entry).await.context(|| format!("archive file {:?}", entry.name))?;
                    found.files.insert(entry.name, stored);
                }
                _ if !entry.link.is_empty() => {
                    found.links.insert(entry.name, entry.link);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// One file into the store, under the digest that its name says if it says one.
    async fn store(&self, reader: &mut Reader<Archive>, entry: &Entry) -> Result<Stored> {
        let named = entry.name.strip_prefix("blobs/").and_then(|path| path.split_once('/'));
        let expected: Option<Digest> =
            named.map(|(algorithm, hex)| format!("{algorithm}:{hex}").parse()).transpose()?;
        let content = &self.shared.stores.content;
        let reference = match &expected {
            Some(digest) => format!("import-{digest}"),
            None => format!("import-{}", Digest::sha256(format!("{entry:?}{reader:p}").as_bytes())),
        };
        let begin = Begin { reference, total: entry.size, expected: expected.clone() };
        let mut ingest = match content.begin(self.scope(), begin).await {
            Ok(mut ingest) => {
                ingest.truncate(0).await?;
                Some(ingest)
            }
            Err(error) if error.is_already_exists() => None,
            Err(error) => return Err(error),
        };
        let mut hasher = expected.as_ref().map_or_else(Hasher::sha256, Digest::hasher);
        let mut head = Bytes::new();
        loop {
            let piece = reader.piece(store::READ).await?;
            if piece.is_empty() {
                break;
            }
            if head.is_empty() {
                head = Bytes::copy_from_slice(&piece[..piece.len().min(4)]);
            }
            hasher.update(&piece);
            if let Some(ingest) = &mut ingest {
                ingest.write(piece).await?;
            }
        }
        let digest = hasher.finish();
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::data_loss(format!("the content of {expected} has digest {digest}")));
        }
        if let Some(mut ingest) = ingest {
            let commit = Commit { size: entry.size, expected: Some(digest.clone()), labels: Labels::new() };
            match ingest.commit(commit).await {
                Err(error) if !error.is_already_exists() => return Err(error),
                _ => {}
            }
        }
        store::keep(&self.shared.stores.leases, self.scope(), "content", digest.as_str()).await?;
        Ok(Stored { digest, size: entry.size, head })
    }

    /// The images of a `manifest.json`: each gets a manifest made of its config and layers.
    async fn docker_images(&self, list: &[u8], found: &Found) -> Result<Vec<(Descriptor, BTreeSet<String>)>> {
        let list: Vec<DockerImage> = serde_json::from_slice(list)
            .map_err(|error| Error::invalid_argument(format!("reading manifest.json: {error}")))?;
        let mut images = Vec::new();
        for image in list {
            let part = |path: &str, kind: fn(&Stored) -> &'static str| {
                let stored = found.get(path)?;
                Ok::<_, Error>(Descriptor::new(kind(&stored), stored.digest.clone(), stored.size))
            };
            let config = part(&image.config, |_| media_type::DOCKER_CONFIG)?;
            let layers: Vec<Descriptor> =
                image.layers.iter().map(|layer| part(layer, layer_type)).collect::<Result<_>>()?;
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST, "config": config, "layers": layers,
            });
            let body = Bytes::from(manifest.to_string());
            let target = Descriptor::new(media_type::DOCKER_MANIFEST, Digest::sha256(&body), body.len() as u64);
            store::write(&self.shared.stores.content, self.scope(), &target, body, Labels::new()).await?;
            let names = image.repo_tags.unwrap_or_default();
            let names = names.iter().map(|name| Reference::familiar(name).map(|name| name.to_string()));
            images.push((target, names.collect::<std::result::Result<_, _>>()?));
        }
        Ok(images)
    }

    /// Labels what an image refers to, and unpacks it where that is wanted.
    async fn take(&self, target: &Descriptor, import: &Import) -> Result<()> {
        let platforms =
            if import.platforms.is_empty() { self.platforms_here(target).await? } else { import.platforms.clone() };
        let wanted = Wanted {
            reference: target.digest.to_string(),
            platforms: or_host(platforms),
            unpack: import.unpack.clone(),
            all_metadata: false,
            all_layers: true,
            discard_layers: false,
        };
        self.fetch_image(target, &wanted).await
    }

    /// The platforms that the store has of an image. Archives often lack some that their index lists.
    async fn platforms_here(&self, target: &Descriptor) -> Result<Vec<Platform>> {
        let content = &self.shared.stores.content;
        let body = store::read(content, self.scope(), &target.digest).await?;
        if !media_type::is_index(&target.media_type) {
            let config = Manifest::parse(target, &body)?.config;
            if !media_type::is_config(&config.media_type) {
                return Ok(Vec::new());
            }
            let body = store::read(content, self.scope(), &config.digest).await?;
            return Ok(vec![ImageConfig::parse(&config, &body)?.platform]);
        }
        let mut platforms = Vec::new();
        for manifest in Index::parse(target, &body)?.manifests {
            let here = store::find(content, self.scope(), &manifest.digest).await?.is_some();
            platforms.extend(manifest.platform.filter(|_| here));
        }
        Ok(platforms)
    }
}

impl Found {
    /// A file by the name that `manifest.json` calls it, through one link at most.
    fn get(&self, path: &str) -> Result<Stored> {
        let missing = || Error::invalid_argument(format!("manifest.json names {path:?}, which is not in the archive"));
        if let Some(stored) = self.files.get(path) {
            return Ok(stored.clone());
        }
        let link = self.links.get(path).ok_or_else(missing)?;
        let beside = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut parts: Vec<&str> = beside.split('/').collect();
        for part in link.split('/') {
            match part {
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.retain(|part| !matches!(*part, "" | "."));
        let found = self.files.get(&parts.join("/")).or_else(|| self.files.get(link));
        found.cloned().ok_or_else(missing)
    }
}

fn layer_type(stored: &Stored) -> &'static str {
    match stored.head.as_ref() {
        [0x1f, 0x8b, ..] => media_type::DOCKER_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::DOCKER_LAYER_ZSTD,
        _ => media_type::DOCKER_LAYER,
    }
}
