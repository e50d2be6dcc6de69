//! `containerd.services.mounts.v1.Mounts` over a mount manager.

mod activate;
mod deactivate;
mod info;
mod list;
mod update;

use kevel_contract::mounts::MountManager;
use kevel_proto::containerd::services::mounts::v1::{
    ActivateRequest, ActivateResponse, DeactivateRequest, InfoRequest, InfoResponse, ListMessage, ListRequest,
    UpdateRequest, UpdateResponse,
};

crate::call::service! {
    /// The mount service.
    Mounts over MountManager as MountsServer in kevel_proto::containerd::services::mounts::v1::mounts_server {
        change activate(ActivateRequest) -> ActivateResponse;
        change deactivate(DeactivateRequest) -> ();
        read info(InfoRequest) -> InfoResponse;
        change update(UpdateRequest) -> UpdateResponse;
    } streams {
        read_stream list(ListRequest) -> ListStream of ListMessage;
    }
}
