//! Transfers: images between registries, the node, and archives.

use std::{collections::BTreeMap, fmt, path::PathBuf, pin::Pin, time::Duration};

use async_trait::async_trait;
use kevel_model::{Descriptor, Labels, Platform, Result};
use kevel_plugin::Kind;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::{Scope, call::handle, image::Image};

/// The transfer service: `io.containerd.transfer.v1.local`.
pub enum TransferService {}

impl Kind for TransferService {
    const TYPE: &'static str = "io.containerd.transfer.v1";
    type Handle = Transfer;
}

/// Who the puller is, to a registry. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name; empty when `secret` is a token.
    pub username: String,
    /// Password, or an identity (refresh) token when there is no user name.
    pub secret: String,
    /// A bearer token that the registry takes as it is.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How to talk to registries.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Directories with `hosts.toml` files, in the order to look; the service's own when empty.
    pub config_paths: Vec<PathBuf>,
    /// Who the puller is; none for anonymous.
    pub credentials: Option<Credentials>,
    /// Headers for every request.
    pub headers: BTreeMap<String, String>,
    /// Plain HTTP even for hosts that are not local.
    pub plain_http: bool,
}

/// A file system to unpack an image into.
#[derive(Clone, Debug)]
pub struct Unpack {
    /// The platform to unpack.
    pub platform: Platform,
    /// The snapshotter; its default when empty.
    pub snapshotter: String,
    /// Labels for each snapshot, handed to remote snapshotters (`containerd.io/snapshot/…`).
    pub labels: Labels,
    /// Tell the snapshotter which layer and image a snapshot is for, so that it may bring the layer itself.
    pub annotate: bool,
}

/// An image to pull.
#[derive(Clone, Debug, Default)]
pub struct Pull {
    /// Complete reference.
    pub reference: String,
    /// Name of the image to make; the reference when empty.
    pub name: String,
    /// How to talk to the registry.
    pub registry: Registry,
    /// Platforms to fetch; the host's when empty.
    pub platforms: Vec<Platform>,
    /// Fetch manifests and configs of every platform.
    pub all_metadata: bool,
    /// Where to unpack; nowhere when empty.
    pub unpack: Vec<Unpack>,
    /// Labels of the image.
    pub labels: Labels,
    /// Let compressed layers go once they are unpacked.
    pub discard_layers: bool,
    /// Flush the file system of each layer before it is committed.
    pub sync_fs: bool,
    /// Layers downloaded at the same time for this pull; the service's own number when none.
    pub max_concurrent_downloads: Option<usize>,
    /// Bytes of the parts in which large layers are downloaded side by side; the service's own size when none.
    pub layer_fetch_buffer: Option<u64>,
    /// Fail when nothing arrives of something for so long, retries included; never when none.
    pub progress_timeout: Option<Duration>,
    /// Is told how it goes; a full channel drops news, never waits.
    pub progress: Option<mpsc::Sender<Progress>>,
}

/// An image to push.
#[derive(Clone, Debug, Default)]
pub struct Push {
    /// Name of the image on the node.
    pub name: String,
    /// Complete reference to push to.
    pub reference: String,
    /// How to talk to the registry.
    pub registry: Registry,
    /// Platforms to push; all when empty.
    pub platforms: Vec<Platform>,
    /// Is told how it goes.
    pub progress: Option<mpsc::Sender<Progress>>,
}

/// What an import does with an archive.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Name for images that the archive does not name: `NAME:<tag of the archive>` or `NAME@digest`.
    pub name: String,
    /// Names given to every image, beside the archive's.
    pub extra_names: Vec<String>,
    /// Make an image named by digest too, with this prefix.
    pub digest_prefix: Option<String>,
    /// Platforms to take; all when empty.
    pub platforms: Vec<Platform>,
    /// Where to unpack; nowhere when empty.
    pub unpack: Vec<Unpack>,
    /// Labels of the images.
    pub labels: Labels,
}

/// What an export writes.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// Images to write.
    pub names: Vec<String>,
    /// Platforms to write; the host's when empty and `all_platforms` is off.
    pub platforms: Vec<Platform>,
    /// Every platform that is there.
    pub all_platforms: bool,
    /// Leave out Docker's `manifest.json`.
    pub skip_docker_manifest: bool,
}

/// How a transfer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What happens: `resolving`, `fetching`, `waiting`, `downloading`, `extracting`, `extracted`, `already exists`,
    /// `complete`, `saved`, ….
    pub event: String,
    /// To what: a reference, or a digest in context.
    pub name: String,
    /// Names of what it belongs to.
    pub parents: Vec<String>,
    /// Bytes so far.
    pub progress: u64,
    /// Bytes in all; 0 when unknown.
    pub total: u64,
    /// The content, once known.
    pub descriptor: Option<Descriptor>,
}

/// An archive to read.
pub type Archive = Pin<Box<dyn AsyncRead + Send>>;
/// An archive to write.
pub type ArchiveSink = Pin<Box<dyn AsyncWrite + Send>>;

/// The transfer service, for whoever writes one. Work is done once per node however many ask for it at the same time,
/// and goes on when who asked first hangs up while others wait. Nothing is left behind by a transfer that fails but
/// what the garbage collector finds, and what a retry can use.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Fetches an image, unpacks it, and names it. Content that a crash took is fetched again. Two that ask for the same
    /// in every respect, credentials included, share one pull and its result.
    async fn pull(&self, scope: &Scope, pull: Pull) -> Result<Image>;
    /// Sends an image to a registry.
    async fn push(&self, scope: &Scope, push: Push) -> Result<()>;
    /// Reads an archive (OCI layout or `docker save`); answers the images it made.
    async fn import(&self, scope: &Scope, archive: Archive, import: Import) -> Result<Vec<Image>>;
    /// Writes an archive.
    async fn export(&self, scope: &Scope, archive: ArchiveSink, export: Export) -> Result<()>;
    /// Unpacks an image that is here already, fetching nothing; "not found" when content is missing.
    async fn unpack(&self, scope: &Scope, name: &str, unpack: Unpack) -> Result<()>;
    /// Gives an image a second name, moving the name if it is taken.
    async fn tag(&self, scope: &Scope, name: &str, new_name: &str) -> Result<Image>;
}

handle! {
    /// The transfer service, for whoever uses it.
    Transfer over Backend {
        /// Fetches an image.
        fn pull(scope: &Scope, pull: Pull) -> Image;
        /// Sends an image to a registry.
        fn push(scope: &Scope, push: Push) -> ();
        /// Reads an archive.
        fn import(scope: &Scope, archive: Archive, import: Import) -> Vec<Image>;
        /// Writes an archive.
        fn export(scope: &Scope, archive: ArchiveSink, export: Export) -> ();
        /// Unpacks an image that is here already.
        fn unpack(scope: &Scope, name: &str, unpack: Unpack) -> ();
        /// Gives an image a second name.
        fn tag(scope: &Scope, name: &str, new_name: &str) -> Image;
    }
}
