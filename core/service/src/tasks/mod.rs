//! `containerd.services.tasks.v1.Tasks` over the task service.

mod checkpoint;
mod close_io;
mod create;
mod delete;
mod delete_process;
mod exec;
mod get;
mod kill;
mod list;
mod list_pids;
mod metrics;
mod pause;
mod resize_pty;
mod resume;
mod start;
mod update;
mod wait;

use kevel_proto::containerd::services::tasks::v1::{
    CheckpointTaskRequest, CheckpointTaskResponse, CloseIoRequest, CreateTaskRequest, CreateTaskResponse,
    DeleteProcessRequest, DeleteResponse, DeleteTaskRequest, ExecProcessRequest, GetRequest, GetResponse, KillRequest,
    ListPidsRequest, ListPidsResponse, ListTasksRequest, ListTasksResponse, MetricsRequest, MetricsResponse,
    PauseTaskRequest, ResizePtyRequest, ResumeTaskRequest, StartRequest, StartResponse, UpdateTaskRequest, WaitRequest,
    WaitResponse,
};

crate::call::service! {
    /// The task service.
    Tasks over kevel_contract::task::Tasks as TasksServer in kevel_proto::containerd::services::tasks::v1::tasks_server {
        change create(CreateTaskRequest) -> CreateTaskResponse;
        change start(StartRequest) -> StartResponse;
        change delete(DeleteTaskRequest) -> DeleteResponse;
        change delete_process(DeleteProcessRequest) -> DeleteResponse;
        read get(GetRequest) -> GetResponse;
        read list(ListTasksRequest) -> ListTasksResponse;
        change kill(KillRequest) -> ();
        change exec(ExecProcessRequest) -> ();
        change resize_pty(ResizePtyRequest) -> ();
        change close_io(CloseIoRequest) -> ();
        change pause(PauseTaskRequest) -> ();
        change resume(ResumeTaskRequest) -> ();
        read list_pids(ListPidsRequest) -> ListPidsResponse;
        change checkpoint(CheckpointTaskRequest) -> CheckpointTaskResponse;
        change update(UpdateTaskRequest) -> ();
        read metrics(MetricsRequest) -> MetricsResponse;
        read wait(WaitRequest) -> WaitResponse;
    }
}
