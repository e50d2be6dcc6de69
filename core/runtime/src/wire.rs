//! From the words of the contracts to the messages that shims exchange, and back.

use std::time::SystemTime;

use kevel_contract::task::{Process, State, Stdio};
use kevel_model::{Any, Mount};
use kevel_proto::{
    containerd::{types, v1::types::Status},
    shim::task::StateResponse,
};
use prost_types::Timestamp;

pub(crate) fn any(any: Any) -> prost_types::Any {
    prost_types::Any { type_url: any.type_url, value: any.value }
}

pub(crate) fn from_any(any: prost_types::Any) -> Any {
    Any { type_url: any.type_url, value: any.value }
}

pub(crate) fn mount(mount: Mount) -> types::Mount {
    types::Mount { r#type: mount.kind, source: mount.source, target: mount.target, options: mount.options }
}

/// A time of the wire. A missing or impossible one is none; so is the zero time of Go, which shims send for "never".
pub(crate) fn time(timestamp: Option<Timestamp>) -> Option<SystemTime> {
    timestamp.filter(|timestamp| timestamp.seconds > 0).and_then(|timestamp| timestamp.try_into().ok())
}

pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    time.into()
}

/// The state of a process; `container_id` is the task's.
pub(crate) fn process(container_id: &str, state: StateResponse) -> Process {
    let id = if state.exec_id.is_empty() { container_id.to_owned() } else { state.exec_id };
    Process {
        container_id: container_id.to_owned(),
        id,
        pid: state.pid,
        state: match Status::try_from(state.status) {
            Ok(Status::Created) => State::Created,
            Ok(Status::Running) => State::Running,
            Ok(Status::Stopped) => State::Stopped,
            Ok(Status::Paused) => State::Paused,
            Ok(Status::Pausing) => State::Pausing,
            Ok(Status::Unknown) | Err(_) => State::Unknown,
        },
        stdio: Stdio { stdin: state.stdin, stdout: state.stdout, stderr: state.stderr, terminal: state.terminal },
        exit_status: state.exit_status,
        exited_at: time(state.exited_at),
    }
}
