//! Images.Get

use kevel_client::convert::{image, need_text};
use kevel_contract::{Scope, image::ImageStore};
use kevel_model::Result;
use kevel_proto::containerd::services::images::v1::{GetImageRequest, GetImageResponse};

pub(super) async fn get(store: ImageStore, scope: Scope, request: GetImageRequest) -> Result<GetImageResponse> {
    need_text("name", &request.name)?;
    let found = store.get(&scope, &request.name).await?;
    Ok(GetImageResponse { image: Some(image::wire(found)) })
}
