//! List and Metrics: one short call to each shim, side by side. A shim that does not answer is left out, not waited for.

use std::{sync::Arc, time::SystemTime};

use futures::{StreamExt as _, stream};
use kevel_contract::{
    Scope,
    task::{Metric, Process, State, Stdio},
};
use kevel_model::Filters;
use kevel_proto::shim::task::{StateRequest, StateResponse, StatsRequest, StatsResponse, method};

use super::TaskManager;
use crate::{Role, Shim, wire};

/// How many shims are asked at the same time.
const PARALLEL: usize = 32;

impl TaskManager {
    pub(super) async fn list_tasks(&self, scope: &Scope, filters: &Filters) -> Vec<Process> {
        let shims = self.selected(scope, filters).await;
        let limit = self.shims.timeouts().state;
        let ask = |shim: Arc<Shim>| async move {
            let request = StateRequest { id: shim.id.clone(), exec_id: String::new() };
            match shim.task::<_, StateResponse>(method::STATE, &request, Some(limit)).await {
                Ok(state) => Some(wire::process(&shim.id, state)),
                // Being created, or its shim has died this instant.
                Err(error) if error.is_closed() || error.code() == kevel_model::Code::NotFound => None,
                Err(error) => {
                    tracing::warn!(id = shim.id, error = kevel_model::Error::from(error).chain(), "no state of a task");
                    Some(unknown(&shim.id))
                }
            }
        };
        stream::iter(shims).map(ask).buffered(PARALLEL).filter_map(|process| async { process }).collect().await
    }

    pub(super) async fn task_metrics(&self, scope: &Scope, filters: &Filters) -> Vec<Metric> {
        let shims = self.selected(scope, filters).await;
        let limit = self.shims.timeouts().stats;
        let ask = |shim: Arc<Shim>| async move {
            let request = StatsRequest { id: shim.id.clone() };
            match shim.task::<_, StatsResponse>(method::STATS, &request, Some(limit)).await {
                Ok(response) => Some(Metric {
                    timestamp: SystemTime::now(),
                    id: shim.id.clone(),
                    data: response.stats.map(wire::from_any),
                }),
                Err(error) => {
                    tracing::debug!(
                        id = shim.id,
                        error = kevel_model::Error::from(error).chain(),
                        "no stats of a task"
                    );
                    None
                }
            }
        };
        stream::iter(shims).map(ask).buffered(PARALLEL).filter_map(|metric| async { metric }).collect().await
    }

    async fn selected(&self, scope: &Scope, filters: &Filters) -> Vec<Arc<Shim>> {
        let mut shims = self.shims.list(&scope.namespace, Role::Task).await;
        shims.retain(|shim| filters.matches(&unknown(&shim.id)));
        shims
    }
}

fn unknown(id: &str) -> Process {
    Process {
        container_id: id.to_owned(),
        id: id.to_owned(),
        pid: 0,
        state: State::Unknown,
        stdio: Stdio::default(),
        exit_status: 0,
        exited_at: None,
    }
}
