//! Images.Update

use kevel_client::convert::{image, need_text, paths};
use kevel_contract::{Scope, image::ImageStore};
use kevel_model::Result;
use kevel_proto::containerd::services::images::v1::{UpdateImageRequest, UpdateImageResponse};

pub(super) async fn update(
    store: ImageStore,
    scope: Scope,
    request: UpdateImageRequest,
) -> Result<UpdateImageResponse> {
    let fieldpaths = paths(request.update_mask);
    let mut wanted = request.image;
    let touches_target =
        |path: &String| path == "target" || path.starts_with("target.") || path.starts_with("annotations");
    if let Some(image) = &mut wanted
        && image.target.is_none()
        && !fieldpaths.is_empty()
        && !fieldpaths.iter().any(touches_target)
    {
        // An update of labels alone need not repeat the target; what stands there is not looked at.
        image.target = store.get(&scope, &image.name).await.map(|stored| image::wire(stored).target)?;
    }
    let update = image::read(wanted)?;
    need_text("image.name", &update.name)?;
    let updated = store.update(&scope, update, &fieldpaths).await?;
    Ok(UpdateImageResponse { image: Some(image::wire(updated)) })
}
