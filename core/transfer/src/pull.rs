//! Pull: resolve, ask the verifiers, keep the documents, fetch and unpack the layers, name the image.

use kevel_contract::{
    Scope,
    image::Image,
    trace,
    transfer::{Pull, Unpack},
};
use kevel_model::{Code, Context as _, Descriptor, Error, Labels, Platform, Reference, Result, media_type};

use crate::{
    Service,
    document::{ImageConfig, Index, Manifest},
    labels,
    listeners::Listeners,
    same::Same,
    select,
    service::{Job, Manner, or_host},
    store,
    unpack::Target,
};

/// Indexes in indexes are followed this deep.
const MAX_DEPTH: usize = 4;

/// What of an image is wanted.
pub(crate) struct Wanted {
    /// As snapshots are annotated with it.
    pub(crate) reference: String,
    /// Platforms, the best manifest for each.
    pub(crate) platforms: Vec<Platform>,
    pub(crate) unpack: Vec<Unpack>,
    pub(crate) all_metadata: bool,
    /// Get layers that are unpacked already, too.
    pub(crate) all_layers: bool,
    /// Let layers go once they are unpacked.
    pub(crate) discard_layers: bool,
}

impl Service {
    /// Pulls, or joins a pull of the same. It ends when the last who waits for it hangs up.
    pub(crate) async fn share_pull(&self, scope: &Scope, mut pull: Pull) -> Result<Image> {
        let same = Same::of(scope, &pull);
        let listeners = self.shared().audience.join(same.clone(), pull.progress.take());
        let ticket = self.shared().pulls.join(same, |stop| {
            let (service, scope) = (self.clone(), scope.clone());
            async move {
                tokio::select! {
                    image = service.pull_image(&scope, pull, listeners) => image,
                    () = stop.cancelled() => Err(Error::cancelled("nobody waits for it any more")),
                }
            }
        });
        ticket.wait().await
    }

    async fn pull_image(&self, scope: &Scope, pull: Pull, listeners: std::sync::Arc<Listeners>) -> Result<Image> {
        let reference = Reference::complete(&pull.reference)?;
        for unpack in &pull.unpack {
            self.shared().snapshotter(&unpack.snapshotter)?;
        }
        let manner = Manner {
            registry: pull.registry,
            max_concurrent_downloads: pull.max_concurrent_downloads,
            layer_fetch_buffer: pull.layer_fetch_buffer,
            patience: pull.progress_timeout.filter(|patience| !patience.is_zero()),
            sync_fs: pull.sync_fs,
            listeners,
        };
        let job = self.registry_job(scope, &reference, manner).await?;
        let session = job.session.clone().ok_or_else(|| Error::internal("a pull without a session"))?;
        job.tell("resolving", &pull.reference, (0, 0), None);
        let resolved = job.patiently("the manifest", async { Ok(session.resolve().await?) });
        let resolved = trace::within(format_args!("resolve"), resolved);
        let target = resolved.await?;
        self.ask_verifiers(&pull.reference, &target).await?;
        job.tell("fetching", &pull.reference, (0, 0), Some(&target));
        let wanted = Wanted {
            reference: pull.reference.clone(),
            platforms: or_host(pull.platforms),
            discard_layers: pull.discard_layers && !pull.unpack.is_empty(),
            unpack: pull.unpack,
            all_metadata: pull.all_metadata,
            all_layers: false,
        };
        job.fetch_image(&target, &wanted).await?;
        let name = if pull.name.is_empty() { &pull.reference } else { &pull.name };
        let image = job.name_image(name, target, pull.labels).await?;
        job.tell("saved", &image.name, (0, 0), Some(&image.target));
        Ok(image)
    }

    /// Asks every verifier; the first that refuses decides.
    async fn ask_verifiers(&self, name: &str, target: &Descriptor) -> Result<()> {
        for (verifier, handle) in &self.shared().verifiers {
            let judgement =
                handle.verify(name, target).await.context(|| format!("asking image verifier {verifier}"))?;
            if !judgement.ok {
                let (digest, reason) = (&target.digest, judgement.reason);
                let message = format!("image verifier {verifier} blocked {name} with digest {digest}: {reason}");
                return Err(Error::new(Code::PermissionDenied, message));
            }
            tracing::debug!(verifier, image = name, reason = judgement.reason, "image verified");
        }
        Ok(())
    }

    pub(crate) async fn unpack_image(&self, scope: &Scope, name: &str, unpack: Unpack) -> Result<()> {
        let image = self.shared().stores.images.get(scope, name).await?;
        let job = self.local_job(scope).await?;
        let wanted = Wanted {
            reference: name.to_owned(),
            platforms: vec![unpack.platform.clone()],
            unpack: vec![unpack],
            all_metadata: false,
            all_layers: false,
            discard_layers: false,
        };
        job.fetch_image(&image.target, &wanted).await
    }
}

impl Job {
    /// Everything that is wanted of what `target` names.
    pub(crate) async fn fetch_image(&self, target: &Descriptor, wanted: &Wanted) -> Result<()> {
        let mut found = Vec::new();
        let mut indexes = vec![(target.clone(), 0)];
        while let Some((descriptor, depth)) = indexes.pop() {
            if media_type::is_manifest(&descriptor.media_type) {
                found.push((descriptor, depth > 0));
            } else if !media_type::is_index(&descriptor.media_type) {
                let kind = &descriptor.media_type;
                return Err(Error::invalid_argument(format!("{} is no image but {kind:?}", descriptor.digest)));
            } else if depth >= MAX_DEPTH {
                return Err(Error::invalid_argument(format!("index {} is nested too deep", descriptor.digest)));
            } else {
                let chosen = self.index(&descriptor, wanted).await?;
                indexes.extend(chosen.into_iter().map(|chosen| (chosen, depth + 1)));
            }
        }
        for (manifest, chosen) in found {
            self.manifest(&manifest, chosen, wanted).await?;
        }
        Ok(())
    }

    /// Keeps an index; answers what of it is wanted.
    async fn index(&self, descriptor: &Descriptor, wanted: &Wanted) -> Result<Vec<Descriptor>> {
        let label = |body: &[u8]| Ok(labels::children(&Index::parse(descriptor, body)?.manifests));
        let body = self.document(descriptor, label).await?;
        let index = Index::parse(descriptor, &body)?;
        let chosen = select::best(&index.manifests, &wanted.platforms);
        if chosen.is_empty() {
            let (digest, want) = (&descriptor.digest, select::list(&wanted.platforms));
            let have = select::list(index.manifests.iter().filter_map(|manifest| manifest.platform.as_ref()));
            return Err(Error::not_found(format!("index {digest} has no manifest for {want}, only for {have}")));
        }
        if wanted.all_metadata {
            for other in &index.manifests {
                if media_type::is_manifest(&other.media_type) && !chosen.contains(other) {
                    let body = self.document(other, |body| manifest_labels(other, body)).await?;
                    let config = Manifest::parse(other, &body)?.config;
                    self.document(&config, |_| Ok(Labels::new())).await?;
                }
            }
        }
        Ok(chosen)
    }

    /// Keeps a manifest and its config, fetches its layers and unpacks them where that is wanted. `chosen` says that
    /// an index has told its platform.
    async fn manifest(&self, descriptor: &Descriptor, chosen: bool, wanted: &Wanted) -> Result<()> {
        let keep = |child: &&Descriptor| !wanted.discard_layers || !media_type::is_layer(&child.media_type);
        let label = |body: &[u8]| Ok(labels::children(Manifest::parse(descriptor, body)?.children().filter(keep)));
        let body = self.document(descriptor, label).await?;
        let manifest = Manifest::parse(descriptor, &body)?;
        if !manifest.is_image() {
            // An artifact: nothing to unpack, and its config may be as large as it likes.
            return self.blobs(manifest.children()).await;
        }
        let body = self.document(&manifest.config, |_| Ok(Labels::new())).await?;
        let config = ImageConfig::parse(&manifest.config, &body)?;
        let runs = |platform: &Platform| config.platform.os.is_empty() || platform.matches(&config.platform);
        if !chosen && !wanted.platforms.iter().any(runs) {
            let want = select::list(&wanted.platforms);
            return Err(Error::not_found(format!("the image is for {}, not for {want}", config.platform)));
        }
        for layer in &manifest.layers {
            self.tell("waiting", layer.digest.as_str(), (0, layer.size), Some(layer));
        }
        let mut unpacked = false;
        for unpack in wanted.unpack.iter().filter(|unpack| runs(&unpack.platform)) {
            let chain = config.chain_ids(&manifest.config, manifest.layers.len())?;
            let (name, snapshotting) = self.shared.snapshotter(&unpack.snapshotter)?;
            let target = Target {
                name: name.clone(),
                snapshotting: snapshotting.clone(),
                reference: wanted.reference.clone(),
                manifest: descriptor.clone(),
                layers: manifest.layers.clone(),
                diff_ids: config.rootfs.diff_ids.clone(),
                chain: chain.clone(),
                labels: unpack.labels.clone(),
                annotate: unpack.annotate || snapshotting.annotates,
            };
            self.unpack(target).await.context(|| format!("unpacking into {name}"))?;
            if let Some(top) = chain.last() {
                let label = (format!("{}{name}", labels::SNAPSHOT_REF), top.to_string());
                let content = &self.shared.stores.content;
                store::label(content, self.scope(), &manifest.config.digest, Labels::from([label])).await?;
            }
            unpacked = true;
        }
        if !unpacked || wanted.all_layers {
            self.blobs(&manifest.layers).await?;
        }
        Ok(())
    }

    /// Sees to it that blobs are in the store, several at a time.
    pub(crate) async fn blobs<'a>(&self, blobs: impl IntoIterator<Item = &'a Descriptor>) -> Result<()> {
        futures::future::try_join_all(blobs.into_iter().map(|blob| self.blob(blob))).await.map(drop)
    }
}

pub(crate) fn manifest_labels(descriptor: &Descriptor, body: &[u8]) -> Result<Labels> {
    Ok(labels::children(Manifest::parse(descriptor, body)?.children()))
}
