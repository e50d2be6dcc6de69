//! Push: blobs first, then the manifests that name them, the named one last.

use kevel_contract::{Scope, transfer::Push};
use kevel_model::{Context as _, Descriptor, Error, Platform, Reference, Result, media_type};

use crate::{
    Service,
    document::{Index, Manifest},
    listeners::Listeners,
    select,
    service::{Job, Manner},
    store,
};

/// Indexes in indexes are followed this deep.
const MAX_DEPTH: usize = 4;

impl Service {
    pub(crate) async fn push_image(&self, scope: &Scope, push: Push) -> Result<()> {
        let reference = Reference::complete(&push.reference)?;
        let image = self.shared().stores.images.get(scope, &push.name).await?;
        let listeners = Listeners::of(push.progress);
        let manner = Manner { registry: push.registry, listeners, ..Manner::default() };
        let job = self.registry_job(scope, &reference, manner).await?;
        let target = job.pushed_target(image.target, &push.platforms).await?;
        let tag = reference.tag();
        if let Some(wanted) = reference.digest()
            && *wanted != target.digest
        {
            return Err(Error::invalid_argument(format!("the image is {}, not {wanted}", target.digest)));
        }
        for document in job.documents(&target).await? {
            let body = store::read(&job.shared.stores.content, job.scope(), &document.digest).await?;
            if media_type::is_manifest(&document.media_type) {
                let manifest = Manifest::parse(&document, &body)?;
                futures::future::try_join_all(manifest.children().map(|blob| job.push_blob(blob))).await?;
            }
            let tag = tag.filter(|_| document.digest == target.digest);
            job.session()?.push_manifest(&document, tag, body).await?;
            job.tell("uploaded", document.digest.as_str(), (document.size, document.size), Some(&document));
        }
        Ok(())
    }
}

impl Job {
    fn session(&self) -> Result<&kevel_registry::Session> {
        self.session.as_ref().ok_or_else(|| Error::internal("a push without a session"))
    }

    /// The whole image, or the manifest of the one platform that is wanted of it.
    async fn pushed_target(&self, target: Descriptor, platforms: &[Platform]) -> Result<Descriptor> {
        if platforms.is_empty() || !media_type::is_index(&target.media_type) {
            return Ok(target);
        }
        let body = store::read(&self.shared.stores.content, self.scope(), &target.digest).await?;
        let mut chosen = select::best(&Index::parse(&target, &body)?.manifests, platforms);
        match (chosen.pop(), chosen.is_empty()) {
            (Some(one), true) => Ok(one),
            (Some(_), false) => Err(Error::invalid_argument("one platform or all can be pushed, not several")),
            (None, _) => {
                let want = select::list(platforms);
                Err(Error::not_found(format!("the image has no manifest for {want}")))
            }
        }
    }

    /// Every index and manifest below `target` that is on the node, children before parents.
    pub(crate) async fn documents(&self, target: &Descriptor) -> Result<Vec<Descriptor>> {
        let mut all = Vec::new();
        let mut level = vec![target.clone()];
        for _ in 0..=MAX_DEPTH {
            let mut next = Vec::new();
            for descriptor in level {
                if media_type::is_index(&descriptor.media_type) {
                    let body = store::read(&self.shared.stores.content, self.scope(), &descriptor.digest)
                        .await
                        .context(|| format!("reading index {}", descriptor.digest))?;
                    next.extend(Index::parse(&descriptor, &body)?.manifests);
                }
                all.push(descriptor);
            }
            if next.is_empty() {
                all.reverse();
                let mut seen = std::collections::HashSet::new();
                all.retain(|descriptor| seen.insert(descriptor.digest.clone()));
                return Ok(all);
            }
            level = next;
        }
        Err(Error::invalid_argument(format!("index {} is nested too deep", target.digest)))
    }

    async fn push_blob(&self, blob: &Descriptor) -> Result<()> {
        let session = self.session()?;
        if session.exists(blob).await? {
            return Ok(());
        }
        let content = &self.shared.stores.content;
        let open = content.open(self.scope(), &blob.digest).await.context(|| format!("reading {}", blob.digest))?;
        let _permit = self.downloads.acquire().await.map_err(|_| Error::cancelled("the service ends"))?;
        let pieces = futures::stream::try_unfold((open, 0), |(open, offset)| async move {
            let piece = open.read_at(offset, store::READ).await.map_err(std::io::Error::other)?;
            let end = offset + piece.len() as u64;
            Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, (open, end))))
        });
        session.push_blob(blob, pieces).await?;
        self.tell("uploaded", blob.digest.as_str(), (blob.size, blob.size), Some(blob));
        Ok(())
    }
}
