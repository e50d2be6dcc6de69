//! Controller.Metrics

use kevel_client::convert::{need_text, types};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerMetricsRequest, ControllerMetricsResponse};

pub(super) async fn metrics(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerMetricsRequest,
) -> Result<ControllerMetricsResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    let metrics = controller.metrics(&scope, &request.sandbox_id).await?;
    Ok(ControllerMetricsResponse { metrics: Some(types::metric_wire(metrics)) })
}
