//! Tasks.Create

use kevel_client::convert::{any_read, need_text, types};
use kevel_contract::{
    Scope,
    task::{Create, Stdio, Tasks},
};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{CreateTaskRequest, CreateTaskResponse};

pub(super) async fn create(tasks: Tasks, scope: Scope, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
    need_text("container_id", &request.container_id)?;
    let checkpoint = request.checkpoint.map(|found| types::descriptor_read("checkpoint", Some(found))).transpose()?;
    let CreateTaskRequest { container_id, stdin, stdout, stderr, terminal, runtime_path, .. } = request;
    let create = Create {
        container_id: container_id.clone(),
        rootfs: types::mounts_read(request.rootfs),
        stdio: Stdio { stdin, stdout, stderr, terminal },
        checkpoint,
        options: request.options.map(any_read),
        runtime_path,
        address: request.task_api_address,
        version: request.task_api_version,
    };
    let pid = tasks.create(&scope, create).await?;
    Ok(CreateTaskResponse { container_id, pid })
}
