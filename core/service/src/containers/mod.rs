//! `containerd.services.containers.v1.Containers` over a container store.

mod create;
mod delete;
mod get;
mod list;
mod list_stream;
mod update;

use kevel_contract::container::ContainerStore;
use kevel_proto::containerd::services::containers::v1::{
    CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, GetContainerRequest, GetContainerResponse,
    ListContainerMessage, ListContainersRequest, ListContainersResponse, UpdateContainerRequest,
    UpdateContainerResponse,
};

crate::call::service! {
    /// The container service.
    Containers over ContainerStore as ContainersServer in kevel_proto::containerd::services::containers::v1::containers_server {
        read get(GetContainerRequest) -> GetContainerResponse;
        read list(ListContainersRequest) -> ListContainersResponse;
        change create(CreateContainerRequest) -> CreateContainerResponse;
        change update(UpdateContainerRequest) -> UpdateContainerResponse;
        change delete(DeleteContainerRequest) -> ();
    } streams {
        read_stream list_stream(ListContainersRequest) -> ListStreamStream of ListContainerMessage;
    }
}
