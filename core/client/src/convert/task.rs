//! Tasks.

use std::time::SystemTime;

use kevel_contract::task::{Deleted, Exit, Process, State, Stdio};
use kevel_model::Result;
use kevel_proto::containerd::{services::tasks::v1::DeleteResponse, v1::types as proto};

use super::{need, optional_time_read, time_read, time_wire};

/// A process for the wire.
pub fn wire(process: Process) -> proto::Process {
    let status = match process.state {
        State::Unknown => proto::Status::Unknown,
        State::Created => proto::Status::Created,
        State::Running => proto::Status::Running,
        State::Stopped => proto::Status::Stopped,
        State::Paused => proto::Status::Paused,
        State::Pausing => proto::Status::Pausing,
    };
    proto::Process {
        container_id: process.container_id,
        id: process.id,
        pid: process.pid,
        status: status.into(),
        stdin: process.stdio.stdin,
        stdout: process.stdio.stdout,
        stderr: process.stdio.stderr,
        terminal: process.stdio.terminal,
        exit_status: process.exit_status,
        exited_at: process.exited_at.and_then(time_wire),
    }
}

/// A process from the wire.
pub fn read(process: Option<proto::Process>) -> Result<Process> {
    let process = need("process", process)?;
    let state = match process.status() {
        proto::Status::Unknown => State::Unknown,
        proto::Status::Created => State::Created,
        proto::Status::Running => State::Running,
        proto::Status::Stopped => State::Stopped,
        proto::Status::Paused => State::Paused,
        proto::Status::Pausing => State::Pausing,
    };
    let exited_at = optional_time_read("process.exited_at", process.exited_at)?;
    Ok(Process {
        container_id: process.container_id,
        id: process.id,
        pid: process.pid,
        state,
        stdio: Stdio {
            stdin: process.stdin,
            stdout: process.stdout,
            stderr: process.stderr,
            terminal: process.terminal,
        },
        exit_status: process.exit_status,
        exited_at: exited_at.filter(|at| *at > SystemTime::UNIX_EPOCH),
    })
}

/// What is left of a process, for the wire.
pub fn deleted_wire(deleted: Deleted) -> DeleteResponse {
    DeleteResponse {
        id: deleted.id,
        pid: deleted.pid,
        exit_status: deleted.exit.status,
        exited_at: time_wire(deleted.exit.at),
    }
}

/// What is left of a process, from the wire.
pub fn deleted_read(deleted: DeleteResponse) -> Result<Deleted> {
    let at = time_read("exited_at", deleted.exited_at)?;
    Ok(Deleted { id: deleted.id, pid: deleted.pid, exit: Exit { status: deleted.exit_status, at } })
}
