//! Images.

use kevel_contract::image::Image;
use kevel_model::Result;
use kevel_proto::containerd::services::images::v1 as proto;

use super::{need, time_read, time_wire, types};

/// For the wire.
pub fn wire(image: Image) -> proto::Image {
    proto::Image {
        name: image.name,
        labels: image.labels,
        target: Some(types::descriptor_wire(image.target)),
        created_at: time_wire(image.created_at),
        updated_at: time_wire(image.updated_at),
    }
}

/// From the wire.
pub fn read(image: Option<proto::Image>) -> Result<Image> {
    let image = need("image", image)?;
    Ok(Image {
        name: image.name,
        labels: image.labels,
        target: types::descriptor_read("image.target", image.target)?,
        created_at: time_read("image.created_at", image.created_at)?,
        updated_at: time_read("image.updated_at", image.updated_at)?,
    })
}
