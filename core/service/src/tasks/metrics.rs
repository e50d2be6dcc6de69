//! Tasks.Metrics

use kevel_client::convert::types;
use kevel_contract::{Scope, task::Tasks};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::tasks::v1::{MetricsRequest, MetricsResponse};

pub(super) async fn metrics(tasks: Tasks, scope: Scope, request: MetricsRequest) -> Result<MetricsResponse> {
    let found = tasks.metrics(&scope, &Filters::parse(&request.filters)?).await?;
    Ok(MetricsResponse { metrics: found.into_iter().map(types::metric_wire).collect() })
}
