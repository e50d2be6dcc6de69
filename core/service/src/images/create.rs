//! Images.Create. The `source_date_epoch` of the request changes nothing here: the store sets its own times.

use kevel_client::convert::{image, need_text};
use kevel_contract::{Scope, image::ImageStore};
use kevel_model::Result;
use kevel_proto::containerd::services::images::v1::{CreateImageRequest, CreateImageResponse};

pub(super) async fn create(
    store: ImageStore,
    scope: Scope,
    request: CreateImageRequest,
) -> Result<CreateImageResponse> {
    let wanted = image::read(request.image)?;
    need_text("image.name", &wanted.name)?;
    let made = store.create(&scope, wanted).await?;
    Ok(CreateImageResponse { image: Some(image::wire(made)) })
}
