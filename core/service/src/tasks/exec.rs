//! Tasks.Exec: adds a process, which Start runs.

use kevel_client::convert::{any_read, need_text};
use kevel_contract::{
    Scope,
    task::{Exec, Stdio, Tasks},
};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::ExecProcessRequest;

pub(super) async fn exec(tasks: Tasks, scope: Scope, request: ExecProcessRequest) -> Result<()> {
    need_text("container_id", &request.container_id)?;
    need_text("exec_id", &request.exec_id)?;
    let ExecProcessRequest { container_id, stdin, stdout, stderr, terminal, spec, exec_id } = request;
    let stdio = Stdio { stdin, stdout, stderr, terminal };
    tasks.exec(&scope, Exec { container_id, exec_id, stdio, spec: spec.map(any_read) }).await
}
