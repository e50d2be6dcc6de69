//! `containerd.services.introspection.v1.Introspection`, and the introspection service behind it.

mod plugin_info;
mod plugins;
mod server_info;
mod service;

pub(crate) use service::Plugin;
pub use service::introspection;

use kevel_proto::containerd::services::introspection::v1::{
    PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use server_info as server_rpc;

/// The introspection service.
#[derive(Clone)]
pub struct Introspection(pub kevel_contract::introspection::Introspection);

#[tonic::async_trait]
impl kevel_proto::containerd::services::introspection::v1::introspection_server::Introspection for Introspection {
    async fn plugins(&self, request: tonic::Request<PluginsRequest>) -> crate::call::Answer<PluginsResponse> {
        crate::call::look(request, |(), message| plugins::plugins(self.0.clone(), message)).await
    }

    async fn server(&self, request: tonic::Request<()>) -> crate::call::Answer<ServerResponse> {
        crate::call::look(request, |(), ()| server_rpc::server(self.0.clone())).await
    }

    async fn plugin_info(&self, request: tonic::Request<PluginInfoRequest>) -> crate::call::Answer<PluginInfoResponse> {
        crate::call::look(request, |(), message| plugin_info::plugin_info(self.0.clone(), message)).await
    }
}

impl Introspection {
    /// The service as a plugin offers it.
    pub fn offer(self) -> crate::Offer {
        use kevel_proto::containerd::services::introspection::v1::introspection_server::IntrospectionServer;
        let server = IntrospectionServer::new(self)
            .max_decoding_message_size(kevel_proto::MESSAGE_LIMIT)
            .max_encoding_message_size(kevel_proto::MESSAGE_LIMIT);
        crate::Offer::grpc(move |routes| {
            routes.add_service(server.clone());
        })
    }
}
