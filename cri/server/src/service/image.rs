//! `runtime.v1.ImageService`.

use std::sync::Arc;

use kevel_proto::runtime::v1::{
    ImageFsInfoRequest, ImageFsInfoResponse, ImageStatusRequest, ImageStatusResponse, ListImagesRequest,
    ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse,
    StreamImagesRequest, StreamImagesResponse, image_service_server::ImageService,
};
use tonic::{Request, Response, Status};

use crate::{
    answer::{Answers, chunks, status},
    server::Server,
};

/// Answers for the server.
pub struct ImageRpc {
    server: Arc<Server>,
}

impl ImageRpc {
    /// Answers for `server`.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server }
    }
}

#[tonic::async_trait]
impl ImageService for ImageRpc {
    type StreamImagesStream = Answers<StreamImagesResponse>;

    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        let images = self.server.images.list(request.get_ref().filter.as_ref());
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.server.images.list(request.get_ref().filter.as_ref());
        Ok(Response::new(chunks(images, |images| StreamImagesResponse { images })))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        self.server.images.status(request.get_ref()).map(Response::new).map_err(|error| status(&error))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let handler = request.image.as_ref().map(|image| image.runtime_handler.clone()).unwrap_or_default();
        let handler = self.server.settings.handler(&handler).map_err(|error| status(&error))?;
        let snapshotter = self.server.snapshotter_of(&handler);
        self.server.images.pull_image(request, snapshotter).await.map(Response::new)
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let images = self.server.images.clone();
        // A task of its own: a caller that hangs up does not leave half of the names.
        let removed = tokio::spawn(async move { images.remove(&name).await }).await;
        let removed = removed.map_err(|_| Status::internal("removing an image panicked"))?;
        removed.map(|()| Response::new(RemoveImageResponse {})).map_err(|error| status(&error))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Result<Response<ImageFsInfoResponse>, Status> {
        self.server.images.fs_info().await.map(Response::new).map_err(|error| status(&error))
    }
}
