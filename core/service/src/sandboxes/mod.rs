//! `containerd.services.sandbox.v1.Store` over a sandbox store.

mod create;
mod delete;
mod get;
mod list;
mod update;

use kevel_contract::sandbox::SandboxStore;
use kevel_proto::containerd::services::sandbox::v1::{
    StoreCreateRequest, StoreCreateResponse, StoreDeleteRequest, StoreDeleteResponse, StoreGetRequest,
    StoreGetResponse, StoreListRequest, StoreListResponse, StoreUpdateRequest, StoreUpdateResponse,
};

crate::call::service! {
    /// The store of sandbox records.
    Store over SandboxStore as StoreServer in kevel_proto::containerd::services::sandbox::v1::store_server {
        change create(StoreCreateRequest) -> StoreCreateResponse;
        change update(StoreUpdateRequest) -> StoreUpdateResponse;
        change delete(StoreDeleteRequest) -> StoreDeleteResponse;
        read list(StoreListRequest) -> StoreListResponse;
        read get(StoreGetRequest) -> StoreGetResponse;
    }
}
