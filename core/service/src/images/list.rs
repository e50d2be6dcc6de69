//! Images.List

use kevel_client::convert::image;
use kevel_contract::{Scope, image::ImageStore};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::images::v1::{ListImagesRequest, ListImagesResponse};

pub(super) async fn list(store: ImageStore, scope: Scope, request: ListImagesRequest) -> Result<ListImagesResponse> {
    let found = store.list(&scope, &Filters::parse(&request.filters)?).await?;
    Ok(ListImagesResponse { images: found.into_iter().map(image::wire).collect() })
}
