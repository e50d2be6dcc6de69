//! Content: immutable blobs by digest, and the ingests that become blobs.

#[cfg(feature = "suite")]
pub mod suite;

use std::{borrow::Cow, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use kevel_model::{Adaptor, Digest, Filters, Labels, Result, filter};
use kevel_plugin::Kind;

use crate::{Scope, call::handle};

/// Content stores on disk or behind a socket: `io.containerd.content.v1`.
pub enum Contents {}

impl Kind for Contents {
    const TYPE: &'static str = "io.containerd.content.v1";
    type Handle = ContentStore;
}

/// The namespaced content service: `io.containerd.service.v1.content-service`.
pub enum ContentService {}

impl Kind for ContentService {
    const TYPE: &'static str = "io.containerd.service.v1";
    type Handle = ContentStore;
}

/// The label, and its value, of blobs that this daemon keeps in the store of another one. That daemon's garbage collector,
/// which knows nothing of our references, keeps them for it; and ours removes no other blob there.
pub const KEPT_ELSEWHERE: (&str, &str) = ("containerd.io/gc.root", "kevel");

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was committed.
    pub created_at: SystemTime,
    /// When its labels changed last.
    pub updated_at: SystemTime,
    /// Its labels.
    pub labels: Labels,
}

impl Adaptor for Info {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (name, []) if name == "digest" => Some(self.digest.as_str().into()),
            (name, []) if name == "size" => Some(self.size.to_string().into()),
            (name, key) if name == "labels" => filter::map_field(&self.labels, key),
            _ => None,
        }
    }
}

/// What is known of an ingest, a blob that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The name that the writer gave it.
    pub reference: String,
    /// Bytes written so far.
    pub offset: u64,
    /// Bytes expected in all; 0 when unknown.
    pub total: u64,
    /// The digest expected, if known.
    pub expected: Option<Digest>,
    /// When the ingest began.
    pub started_at: SystemTime,
    /// When it was written to last.
    pub updated_at: SystemTime,
}

impl Adaptor for Status {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [name] if name == "ref" => Some(self.reference.as_str().into()),
            _ => None,
        }
    }
}

/// What to open an ingest with.
#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// Names the ingest; who opens the same name again resumes it.
    pub reference: String,
    /// Bytes expected in all; 0 when unknown.
    pub total: u64,
    /// The digest expected. If such a blob exists already, opening fails with "already exists".
    pub expected: Option<Digest>,
}

/// What a commit must meet, and what the blob gets.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The size that must have been written; 0 when any is fine.
    pub size: u64,
    /// The digest that the data must have.
    pub expected: Option<Digest>,
    /// Labels of the new blob.
    pub labels: Labels,
}

/// A content store, for whoever writes one.
///
/// An ingest is opened with [`Backend::begin`], written in order, and committed once; the commit verifies size and
/// digest and makes the blob durable before it returns. One writer at a time per reference: a second gets
/// "unavailable". Errors: "not found" for an unknown digest or reference, "already exists" when the digest is there
/// (on begin and on commit), "failed precondition" when size or digest differ (the ingest stays and can be aborted).
/// `list` and `statuses` answer in order of digest and reference.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What is known of a blob.
    async fn info(&self, scope: &Scope, digest: &Digest) -> Result<Info>;
    /// Changes labels, by field paths as in [`kevel_model::apply_label_fieldpaths`].
    async fn update(&self, scope: &Scope, info: Info, fieldpaths: &[String]) -> Result<Info>;
    /// All blobs that match.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>>;
    /// Removes a blob.
    async fn delete(&self, scope: &Scope, digest: &Digest) -> Result<()>;
    /// Opens a blob for reading.
    async fn open(&self, scope: &Scope, digest: &Digest) -> Result<Box<dyn Blob>>;
    /// What is known of an ingest.
    async fn status(&self, scope: &Scope, reference: &str) -> Result<Status>;
    /// All ingests that match.
    async fn statuses(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Status>>;
    /// Opens an ingest, new or resumed.
    async fn begin(&self, scope: &Scope, begin: Begin) -> Result<Box<dyn Ingest>>;
    /// Throws an ingest away.
    async fn abort(&self, scope: &Scope, reference: &str) -> Result<()>;
}

/// An open blob.
#[async_trait]
pub trait Blob: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Up to `length` bytes from `offset`; fewer only at the end, none past it.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;
}

/// An open ingest. Dropping it keeps what was written and lets somebody else resume.
#[async_trait]
pub trait Ingest: Send {
    /// How far it is.
    fn status(&self) -> Status;
    /// The digest of what was written so far, where the writer knows it.
    async fn digest(&mut self) -> Result<Digest>;
    /// Appends.
    async fn write(&mut self, data: Bytes) -> Result<()>;
    /// Cuts back to `size` bytes (0 to begin again).
    async fn truncate(&mut self, size: u64) -> Result<()>;
    /// Verifies, makes durable, and turns the ingest into a blob.
    async fn commit(&mut self, commit: Commit) -> Result<Digest>;
}

handle! {
    /// A content store, for whoever uses one.
    ContentStore over Backend {
        /// What is known of a blob.
        fn info(scope: &Scope, digest: &Digest) -> Info;
        /// Changes labels.
        fn update(scope: &Scope, info: Info, fieldpaths: &[String]) -> Info;
        /// All blobs that match.
        fn list(scope: &Scope, filters: &Filters) -> Vec<Info>;
        /// Removes a blob.
        fn delete(scope: &Scope, digest: &Digest) -> ();
        /// Opens a blob for reading.
        fn open(scope: &Scope, digest: &Digest) -> Box<dyn Blob>;
        /// What is known of an ingest.
        fn status(scope: &Scope, reference: &str) -> Status;
        /// All ingests that match.
        fn statuses(scope: &Scope, filters: &Filters) -> Vec<Status>;
        /// Opens an ingest.
        fn begin(scope: &Scope, begin: Begin) -> Box<dyn Ingest>;
        /// Throws an ingest away.
        fn abort(scope: &Scope, reference: &str) -> ();
    }
}

impl ContentStore {
    /// Reads a whole blob of at most `limit` bytes.
    pub async fn read(&self, scope: &Scope, digest: &Digest, limit: u64) -> Result<Bytes> {
        let blob = self.open(scope, digest).await?;
        if blob.size() > limit {
            return Err(kevel_model::Error::resource_exhausted(format!(
                "blob {digest} has {} bytes, more than {limit}",
                blob.size()
            )));
        }
        let mut data = Vec::with_capacity(usize::try_from(blob.size()).unwrap_or(0));
        while (data.len() as u64) < blob.size() {
            let part = blob.read_at(data.len() as u64, 1 << 20).await?;
            if part.is_empty() {
                return Err(kevel_model::Error::data_loss(format!(
                    "blob {digest} ends early, at {} bytes",
                    data.len()
                )));
            }
            data.extend_from_slice(&part);
        }
        Ok(data.into())
    }

    /// Writes a whole blob; one that is there already is fine (labels are then merged in).
    pub async fn put(&self, scope: &Scope, reference: &str, data: Bytes, labels: Labels) -> Result<Digest> {
        let digest = Digest::sha256(&data);
        let size = data.len() as u64;
        let begin = Begin { reference: reference.to_owned(), total: size, expected: Some(digest.clone()) };
        let written = async {
            let mut ingest = self.begin(scope, begin).await?;
            ingest.truncate(0).await?;
            ingest.write(data).await?;
            ingest.commit(Commit { size, expected: Some(digest.clone()), labels: labels.clone() }).await
        };
        match written.await {
            Err(error) if error.is_already_exists() => {
                let fieldpaths: Vec<_> = labels.keys().map(|key| format!("labels.{key}")).collect();
                if !fieldpaths.is_empty() {
                    let mut info = self.info(scope, &digest).await?;
                    info.labels = labels;
                    self.update(scope, info, &fieldpaths).await?;
                }
                Ok(digest)
            }
            other => other,
        }
    }
}
