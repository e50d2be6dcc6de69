//! Images behind a socket.

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    image::{Backend, Delete, Image, ImageStore},
};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::{
    services::images::v1::{
        CreateImageRequest, DeleteImageRequest, GetImageRequest, ListImagesRequest, UpdateImageRequest,
        images_client::ImagesClient,
    },
    types::Descriptor,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{image, mask},
    remote::{answer, client, request},
};

/// An image store behind a socket.
pub fn images(remote: &Remote) -> ImageStore {
    ImageStore::new(remote.target(), RemoteImages(remote.clone()))
}

struct RemoteImages(Remote);

impl RemoteImages {
    fn client(&self) -> ImagesClient<Channel> {
        client!(ImagesClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteImages {
    async fn get(&self, scope: &Scope, name: &str) -> Result<Image> {
        let message = GetImageRequest { name: name.to_owned() };
        image::read(answer(self.client().get(request(scope, message)?).await)?.image)
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Image>> {
        let message = ListImagesRequest { filters: filters.sources().to_vec() };
        let found = answer(self.client().list(request(scope, message)?).await)?.images;
        found.into_iter().map(|found| image::read(Some(found))).collect()
    }

    async fn create(&self, scope: &Scope, wanted: Image) -> Result<Image> {
        let message = CreateImageRequest { image: Some(image::wire(wanted)), source_date_epoch: None };
        image::read(answer(self.client().create(request(scope, message)?).await)?.image)
    }

    async fn update(&self, scope: &Scope, wanted: Image, fieldpaths: &[String]) -> Result<Image> {
        let (image, update_mask) = (Some(image::wire(wanted)), mask(fieldpaths));
        let message = UpdateImageRequest { image, update_mask, source_date_epoch: None };
        image::read(answer(self.client().update(request(scope, message)?).await)?.image)
    }

    async fn delete(&self, scope: &Scope, name: &str, delete: Delete) -> Result<()> {
        let target = delete.target.map(|digest| Descriptor { digest: digest.to_string(), ..Descriptor::default() });
        let message = DeleteImageRequest { name: name.to_owned(), sync: delete.sync, target };
        answer(self.client().delete(request(scope, message)?).await)
    }
}
