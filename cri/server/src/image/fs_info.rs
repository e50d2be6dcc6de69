//! ImageFsInfo: what images and containers use.

use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _, path::Path, time::Instant};

use futures::StreamExt as _;
use kevel_contract::snapshot::{Kind, Usage};
use kevel_model::{Filters, Result};
use kevel_proto::runtime::v1::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoResponse, UInt64Value};

use super::Images;
use crate::{identity, usage::Counted};

/// How many snapshots are asked about at once; most answer from memory.
const AT_ONCE: usize = 256;

/// Where blobs are, below the root directory.
const CONTENT: &str = "io.containerd.content.v1.content";

impl Images {
    /// Bytes and inodes of layers, compressed and not, and of containers' own files. The snapshotter that images are
    /// unpacked in unless a handler says otherwise comes first, which is the one that the kubelet looks at; others
    /// follow if they hold anything. Blobs on a file system of their own are an entry of their own.
    pub(crate) async fn fs_info(&self) -> Result<ImageFsInfoResponse> {
        let first = self.snapshotter_of("", "");
        let others = self.snapshotters.keys().filter(|name| **name != first).cloned();
        let (mut image_filesystems, mut container_filesystems) = (Vec::new(), Vec::new());
        for name in std::iter::once(first.clone()).chain(others) {
            let (images, containers) = self.usage(&name).await?;
            let (mountpoint, now) = (self.mountpoint(&name), identity::now());
            if name == first || images != Usage::default() {
                image_filesystems.push(describe(images, &mountpoint, now));
            }
            if name == first || containers != Usage::default() {
                container_filesystems.push(describe(containers, &mountpoint, now));
            }
        }
        let blobs = self.blobs().await?;
        let content = self.root.join(CONTENT).to_string_lossy().into_owned();
        match image_filesystems.first_mut() {
            Some(entry) if same_device(&content, &self.mountpoint(&first)) => add(entry, blobs),
            _ => image_filesystems.push(describe(blobs, &content, identity::now())),
        }
        Ok(ImageFsInfoResponse { image_filesystems, container_filesystems })
    }

    /// Where a snapshotter keeps its files.
    pub(crate) fn mountpoint(&self, snapshotter: &str) -> String {
        self.root.join(format!("io.containerd.snapshotter.v1.{snapshotter}")).to_string_lossy().into_owned()
    }

    /// How large a container's own files are, as last counted; a `new` count is waited for until then.
    pub(crate) async fn layer(&self, snapshotter: &str, key: &str, new: Option<Instant>) -> Option<Counted> {
        let store = self.snapshotters.get(snapshotter)?.clone();
        let (scope, of) = (self.scope.clone(), key.to_owned());
        self.layers.get(snapshotter, key, new, move || async move { store.usage(&scope, &of).await }).await
    }

    /// Forgets how large a container's own files were.
    pub(crate) fn forget_layer(&self, snapshotter: &str, key: &str) {
        self.layers.forget(snapshotter, key);
    }

    /// Every blob once, whatever the number of its names.
    async fn blobs(&self) -> Result<Usage> {
        let mut seen = BTreeSet::new();
        let mut sum = Usage::default();
        for blob in self.content.list(&self.scope, &Filters::default()).await? {
            if seen.insert(blob.digest.clone()) {
                sum.size += blob.size;
                sum.inodes += 1;
            }
        }
        Ok(sum)
    }

    /// What layers of images and what containers use in a snapshotter.
    async fn usage(&self, name: &str) -> Result<(Usage, Usage)> {
        let Some(snapshotter) = self.snapshotters.get(name) else { return Ok(Default::default()) };
        let all = snapshotter.list(&self.scope, &Filters::default()).await?;
        let used = futures::stream::iter(all).map(|info| async move {
            let usage = match info.kind {
                Kind::Committed => snapshotter.usage(&self.scope, &info.name).await.map(Some),
                Kind::Active | Kind::View => Ok(self.layer(name, &info.name, None).await.map(|(usage, _)| usage)),
            };
            (info.kind, usage)
        });
        let mut used = used.buffer_unordered(AT_ONCE);
        let (mut images, mut containers) = (Usage::default(), Usage::default());
        while let Some((kind, usage)) = used.next().await {
            let usage = match usage {
                Err(error) if error.is_not_found() => continue, // removed meanwhile
                other => other?.unwrap_or_default(),
            };
            let sum = if kind == Kind::Committed { &mut images } else { &mut containers };
            sum.size += usage.size;
            sum.inodes += usage.inodes;
        }
        Ok((images, containers))
    }
}

fn same_device(one: &str, other: &str) -> bool {
    let device = |path: &str| Path::new(path).metadata().map(|found| found.dev()).ok();
    // What does not exist yet holds nothing and is not on another device.
    device(one).zip(device(other)).is_none_or(|(one, other)| one == other)
}

fn add(entry: &mut FilesystemUsage, usage: Usage) {
    entry.used_bytes.get_or_insert_default().value += usage.size;
    entry.inodes_used.get_or_insert_default().value += usage.inodes;
}

/// The time is when it was counted, in nanoseconds since the epoch.
pub(crate) fn describe(usage: Usage, mountpoint: &str, timestamp: i64) -> FilesystemUsage {
    FilesystemUsage {
        timestamp,
        fs_id: Some(FilesystemIdentifier { mountpoint: mountpoint.to_owned() }),
        used_bytes: Some(UInt64Value { value: usage.size }),
        inodes_used: Some(UInt64Value { value: usage.inodes }),
    }
}
