//! Images.Delete

use kevel_client::convert::{need_text, types};
use kevel_contract::{
    Scope,
    image::{Delete, ImageStore},
};
use kevel_model::Result;
use kevel_proto::containerd::services::images::v1::DeleteImageRequest;

pub(super) async fn delete(store: ImageStore, scope: Scope, request: DeleteImageRequest) -> Result<()> {
    need_text("name", &request.name)?;
    let target = match request.target {
        Some(target) => Some(types::descriptor_read("target", Some(target))?.digest),
        None => None,
    };
    store.delete(&scope, &request.name, Delete { sync: request.sync, target }).await
}
