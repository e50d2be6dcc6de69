//! Introspection.Server

use kevel_contract::introspection::Introspection;
use kevel_model::Result;
use kevel_proto::containerd::services::introspection::v1::ServerResponse;

pub(super) async fn server(service: Introspection) -> Result<ServerResponse> {
    let server = service.server().await?;
    Ok(ServerResponse { uuid: server.uuid, pid: server.pid, pidns: server.pidns, deprecations: Vec::new() })
}
