//! `containerd.services.content.v1.Content` over a content store.

mod abort;
mod delete;
mod info;
mod list;
mod list_statuses;
mod read;
mod status;
mod update;
mod write;

use kevel_contract::content::ContentStore;
use kevel_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, InfoRequest, InfoResponse, ListContentRequest, ListContentResponse,
    ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse, StatusRequest, StatusResponse,
    UpdateRequest, UpdateResponse, WriteContentRequest, WriteContentResponse,
};
use tonic::Streaming;

crate::call::service! {
    /// The content service.
    Content over ContentStore as ContentServer in kevel_proto::containerd::services::content::v1::content_server {
        read info(InfoRequest) -> InfoResponse;
        read status(StatusRequest) -> StatusResponse;
        read list_statuses(ListStatusesRequest) -> ListStatusesResponse;
        change update(UpdateRequest) -> UpdateResponse;
        change delete(DeleteContentRequest) -> ();
        change abort(AbortRequest) -> ();
    } streams {
        read_stream list(ListContentRequest) -> ListStream of ListContentResponse;
        read_stream read(ReadContentRequest) -> ReadStream of ReadContentResponse;
        read_stream write(Streaming<WriteContentRequest>) -> WriteStream of WriteContentResponse;
    }
}
