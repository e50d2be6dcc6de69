//! Tasks.ListPids

use kevel_client::convert::{any_wire, need_text};
use kevel_contract::{
    Scope,
    task::{Pid, Tasks},
};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{ListPidsRequest, ListPidsResponse};
use kevel_proto::containerd::v1::types::ProcessInfo;

pub(super) async fn list_pids(tasks: Tasks, scope: Scope, request: ListPidsRequest) -> Result<ListPidsResponse> {
    need_text("container_id", &request.container_id)?;
    let pids = tasks.pids(&scope, &request.container_id).await?;
    let wire = |pid: Pid| ProcessInfo { pid: pid.pid, info: pid.info.map(any_wire) };
    Ok(ListPidsResponse { processes: pids.into_iter().map(wire).collect() })
}
