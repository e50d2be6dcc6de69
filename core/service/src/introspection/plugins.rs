//! Introspection.Plugins

use kevel_client::convert::introspection;
use kevel_contract::introspection::Introspection;
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::introspection::v1::{PluginsRequest, PluginsResponse};

pub(super) async fn plugins(service: Introspection, request: PluginsRequest) -> Result<PluginsResponse> {
    let found = service.plugins(&Filters::parse(&request.filters)?).await?;
    Ok(PluginsResponse { plugins: found.iter().map(|report| introspection::wire(report)).collect() })
}
