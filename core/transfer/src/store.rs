//! The content store as transfers use it: small content whole, labels added, leases kept.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use kevel_contract::{
    Scope,
    content::{Begin, Commit, ContentStore, Info},
    lease::{LeaseManager, Resource},
};
use kevel_model::{Code, Context as _, Descriptor, Digest, Error, Labels, Result, media_type};

/// The largest document that is read whole, in bytes; the registry client has the same limit.
const MAX_DOCUMENT: u64 = 8 << 20;
/// How much is read at once.
pub(crate) const READ: usize = 1 << 20;

/// The name of the ingest of some content; containerd's, so that its clients and we take up each other's.
pub(crate) fn ingest_reference(descriptor: &Descriptor) -> String {
    let kind = &descriptor.media_type;
    let prefix = if media_type::is_index(kind) {
        "index-"
    } else if media_type::is_manifest(kind) {
        "manifest-"
    } else if media_type::is_config(kind) {
        "config-"
    } else if media_type::is_layer(kind) {
        "layer-"
    } else {
        "unknown-"
    };
    format!("{prefix}{}", descriptor.digest)
}

/// Whether content is there.
pub(crate) async fn find(content: &ContentStore, scope: &Scope, digest: &Digest) -> Result<Option<Info>> {
    match content.info(scope, digest).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A document whole.
pub(crate) async fn read(content: &ContentStore, scope: &Scope, digest: &Digest) -> Result<Bytes> {
    let blob = content.open(scope, digest).await?;
    let size = blob.size();
    if size > MAX_DOCUMENT {
        return Err(Error::resource_exhausted(format!("document {digest} has {size} bytes, more than {MAX_DOCUMENT}")));
    }
    let mut data = BytesMut::new();
    while (data.len() as u64) < size {
        let piece = blob.read_at(data.len() as u64, READ).await.context(|| format!("reading {digest}"))?;
        if piece.is_empty() {
            return Err(Error::data_loss(format!("content {digest} ends after {} of {size} bytes", data.len())));
        }
        data.extend_from_slice(&piece);
    }
    Ok(data.freeze())
}

/// The digest that content really has, by the algorithm of the one that it is known by.
pub(crate) async fn hash(content: &ContentStore, scope: &Scope, digest: &Digest) -> Result<Digest> {
    let blob = content.open(scope, digest).await?;
    let (mut hasher, mut offset) = (digest.hasher(), 0);
    while offset < blob.size() {
        let piece = blob.read_at(offset, READ).await.context(|| format!("reading {digest}"))?;
        if piece.is_empty() {
            break; // shorter than it should be: another digest
        }
        offset += piece.len() as u64;
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}

/// Writes content that is here whole.
pub(crate) async fn write(
    content: &ContentStore,
    scope: &Scope,
    descriptor: &Descriptor,
    body: Bytes,
    labels: Labels,
) -> Result<()> {
    let begin = Begin {
        reference: ingest_reference(descriptor),
        total: descriptor.size,
        expected: Some(descriptor.digest.clone()),
    };
    let size = body.len() as u64;
    let written = async {
        let mut ingest = content.begin(scope, begin).await?;
        if ingest.status().offset > 0 {
            ingest.truncate(0).await?;
        }
        ingest.write(body).await?;
        let expected = Some(descriptor.digest.clone());
        ingest.commit(Commit { size, expected, labels: labels.clone() }).await
    };
    match written.await {
        Ok(_) => Ok(()),
        // Another transfer was faster; what it wrote may lack our labels. One that is still at it will have written the
        // same, and a document is short.
        Err(error) if error.is_already_exists() => label(content, scope, &descriptor.digest, labels).await,
        Err(error) if error.code() == Code::Unavailable => {
            for _ in 0..50 {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                if find(content, scope, &descriptor.digest).await?.is_some() {
                    return label(content, scope, &descriptor.digest, labels).await;
                }
            }
            Err(error.context(format!("writing {}", descriptor.digest)))
        }
        Err(error) => Err(error.context(format!("writing {}", descriptor.digest))),
    }
}

/// Adds labels to content, if it lacks any of them.
pub(crate) async fn label(content: &ContentStore, scope: &Scope, digest: &Digest, labels: Labels) -> Result<()> {
    let info = content.info(scope, digest).await?;
    let labels: Labels = labels.into_iter().filter(|(key, value)| info.labels.get(key) != Some(value)).collect();
    if labels.is_empty() {
        return Ok(());
    }
    let paths: Vec<String> = labels.keys().map(|key| format!("labels.{key}")).collect();
    let epoch = SystemTime::UNIX_EPOCH;
    let info = Info { digest: digest.clone(), size: 0, created_at: epoch, updated_at: epoch, labels };
    content.update(scope, info, &paths).await.map(drop).context(|| format!("labelling {digest}"))
}

/// Adds something that is there already to the lease of the scope.
pub(crate) async fn keep(leases: &LeaseManager, scope: &Scope, kind: &str, id: &str) -> Result<()> {
    let Some(lease) = &scope.lease else { return Ok(()) };
    let resource = Resource { kind: kind.to_owned(), id: id.to_owned() };
    leases.add(scope, lease, resource).await.context(|| format!("adding {kind} {id} to lease {lease}"))
}
