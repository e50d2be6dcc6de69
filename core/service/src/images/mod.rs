//! `containerd.services.images.v1.Images` over an image store.

mod create;
mod delete;
mod get;
mod list;
mod update;

use kevel_contract::image::ImageStore;
use kevel_proto::containerd::services::images::v1::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse, ListImagesRequest,
    ListImagesResponse, UpdateImageRequest, UpdateImageResponse,
};

crate::call::service! {
    /// The image service.
    Images over ImageStore as ImagesServer in kevel_proto::containerd::services::images::v1::images_server {
        read get(GetImageRequest) -> GetImageResponse;
        read list(ListImagesRequest) -> ListImagesResponse;
        change create(CreateImageRequest) -> CreateImageResponse;
        change update(UpdateImageRequest) -> UpdateImageResponse;
        change delete(DeleteImageRequest) -> ();
    }
}
