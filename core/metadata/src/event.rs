//! The events that the stores publish, in the form that subscribers decode.

use kevel_contract::{container::Container, content, image::Image};
use kevel_model::{Any, Labels, Namespace};
use kevel_proto::{containerd::events, containerd::services::images::v1 as images};
use prost::{Message, Name};

/// An event that waits for its commit.
pub(crate) struct Event {
    pub(crate) namespace: Namespace,
    pub(crate) topic: &'static str,
    pub(crate) event: Any,
}

fn pack<M: Message + Name>(message: &M) -> Any {
    Any::new(M::full_name(), message.encode_to_vec())
}

pub(crate) fn image_create(image: &Image) -> Any {
    pack(&images::ImageCreate { name: image.name.clone(), labels: image.labels.clone() })
}

pub(crate) fn image_update(image: &Image) -> Any {
    pack(&images::ImageUpdate { name: image.name.clone(), labels: image.labels.clone() })
}

pub(crate) fn image_delete(name: &str) -> Any {
    pack(&images::ImageDelete { name: name.to_owned() })
}

pub(crate) fn container_create(container: &Container) -> Any {
    let options = container.runtime.options.as_ref();
    let runtime = events::container_create::Runtime {
        name: container.runtime.name.clone(),
        options: options.map(|any| prost_types::Any { type_url: any.type_url.clone(), value: any.value.clone() }),
    };
    pack(&events::ContainerCreate { id: container.id.clone(), image: container.image.clone(), runtime: Some(runtime) })
}

pub(crate) fn container_update(container: &Container) -> Any {
    pack(&events::ContainerUpdate {
        id: container.id.clone(),
        image: container.image.clone(),
        labels: container.labels.clone(),
        snapshot_key: container.snapshot_key.clone(),
    })
}

pub(crate) fn container_delete(id: &str) -> Any {
    pack(&events::ContainerDelete { id: id.to_owned() })
}

pub(crate) fn content_create(info: &content::Info) -> Any {
    pack(&events::ContentCreate {
        digest: info.digest.to_string(),
        size: i64::try_from(info.size).unwrap_or(i64::MAX),
        ..Default::default()
    })
}

pub(crate) fn content_delete(digest: &str) -> Any {
    pack(&events::ContentDelete { digest: digest.to_owned() })
}

pub(crate) fn namespace_create(name: &Namespace, labels: &Labels) -> Any {
    pack(&events::NamespaceCreate { name: name.to_string(), labels: labels.clone() })
}

pub(crate) fn namespace_update(name: &Namespace, labels: &Labels) -> Any {
    pack(&events::NamespaceUpdate { name: name.to_string(), labels: labels.clone() })
}

pub(crate) fn namespace_delete(name: &Namespace) -> Any {
    pack(&events::NamespaceDelete { name: name.to_string() })
}

pub(crate) fn snapshot_prepare(snapshotter: &str, key: &str, parent: &str) -> Any {
    pack(&events::SnapshotPrepare {
        key: key.to_owned(),
        parent: parent.to_owned(),
        snapshotter: snapshotter.to_owned(),
    })
}

pub(crate) fn snapshot_commit(snapshotter: &str, key: &str, name: &str) -> Any {
    pack(&events::SnapshotCommit { key: key.to_owned(), name: name.to_owned(), snapshotter: snapshotter.to_owned() })
}

pub(crate) fn snapshot_remove(snapshotter: &str, key: &str) -> Any {
    pack(&events::SnapshotRemove { key: key.to_owned(), snapshotter: snapshotter.to_owned() })
}
