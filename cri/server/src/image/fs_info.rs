//! ImageFsInfo: what images and containers use.

use futures::StreamExt as _;
use kevel_contract::snapshot::{Kind, Snapshotter, Usage};
use kevel_model::{Filters, Result};
use kevel_proto::runtime::v1::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoResponse, UInt64Value};

use super::Images;
use crate::identity;

impl Images {
    /// Bytes and inodes of layers, compressed and not, and of containers' own files.
    pub(crate) async fn fs_info(&self) -> Result<ImageFsInfoResponse> {
        let name = self.snapshotter_of("", "");
        let mut images = Usage::default();
        let mut containers = Usage::default();
        if let Some(snapshotter) = self.snapshotters.get(&name) {
            (images, containers) = self.usage(snapshotter).await?;
        }
        for blob in self.content.list(&self.scope, &Filters::default()).await? {
            images.size += blob.size;
            images.inodes += 1;
        }
        let mountpoint = self.mountpoint(&name);
        Ok(ImageFsInfoResponse {
            image_filesystems: vec![describe(images, &mountpoint)],
            container_filesystems: vec![describe(containers, &mountpoint)],
        })
    }

    /// Where a snapshotter keeps its files.
    pub(crate) fn mountpoint(&self, snapshotter: &str) -> String {
        self.root.join(format!("io.containerd.snapshotter.v1.{snapshotter}")).to_string_lossy().into_owned()
    }

    async fn usage(&self, snapshotter: &Snapshotter) -> Result<(Usage, Usage)> {
        let all = snapshotter.list(&self.scope, &Filters::default()).await?;
        let used = futures::stream::iter(all)
            .map(|info| async move { (info.kind, snapshotter.usage(&self.scope, &info.name).await) });
        let mut used = used.buffer_unordered(8);
        let (mut images, mut containers) = (Usage::default(), Usage::default());
        while let Some((kind, usage)) = used.next().await {
            let usage = match usage {
                Err(error) if error.is_not_found() => continue, // removed meanwhile
                other => other?,
            };
            let sum = if kind == Kind::Committed { &mut images } else { &mut containers };
            sum.size += usage.size;
            sum.inodes += usage.inodes;
        }
        Ok((images, containers))
    }
}

pub(crate) fn describe(usage: Usage, mountpoint: &str) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: identity::now(),
        fs_id: Some(FilesystemIdentifier { mountpoint: mountpoint.to_owned() }),
        used_bytes: Some(UInt64Value { value: usage.size }),
        inodes_used: Some(UInt64Value { value: usage.inodes }),
    }
}
