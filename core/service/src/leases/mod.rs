//! `containerd.services.leases.v1.Leases` over a lease manager.

mod add_resource;
mod create;
mod delete;
mod delete_resource;
mod list;
mod list_resources;

use kevel_contract::lease::LeaseManager;
use kevel_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest, ListRequest,
    ListResourcesRequest, ListResourcesResponse, ListResponse,
};

crate::call::service! {
    /// The lease service.
    Leases over LeaseManager as LeasesServer in kevel_proto::containerd::services::leases::v1::leases_server {
        change create(CreateRequest) -> CreateResponse;
        change delete(DeleteRequest) -> ();
        read list(ListRequest) -> ListResponse;
        change add_resource(AddResourceRequest) -> ();
        change delete_resource(DeleteResourceRequest) -> ();
        read list_resources(ListResourcesRequest) -> ListResourcesResponse;
    }
}
