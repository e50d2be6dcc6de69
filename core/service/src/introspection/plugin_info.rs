//! Introspection.PluginInfo. For the runtime, what its shim says of itself.

use kevel_client::convert::{any_read, any_wire, introspection, need_text};
use kevel_contract::introspection::Introspection;
use kevel_model::Result;
use kevel_proto::containerd::services::introspection::v1::{PluginInfoRequest, PluginInfoResponse};

pub(super) async fn plugin_info(service: Introspection, request: PluginInfoRequest) -> Result<PluginInfoResponse> {
    need_text("type", &request.r#type)?;
    need_text("id", &request.id)?;
    let info = service.plugin_info(&request.r#type, &request.id, request.options.map(any_read)).await?;
    Ok(PluginInfoResponse {
        plugin: info.plugin.map(|report| introspection::wire(&report)),
        extra: info.extra.map(any_wire),
    })
}
