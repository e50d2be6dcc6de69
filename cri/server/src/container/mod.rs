//! Containers: a file for each RPC, and what they share.

mod artifact;
mod attach;
pub(crate) mod cdi;
mod create;
mod exec;
mod exec_sync;
mod image_volume;
mod list;
pub(crate) mod monitor;
mod remove;
mod reopen_log;
mod start;
pub(crate) mod stats;
mod status;
mod stop;
mod update;
mod user;
mod volume;

use std::sync::Arc;

use kevel_cri_logs::Settings;
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::{ContainerEventType, ContainerState as CriState};

use crate::{
    files::blocking,
    index::Container,
    record::{ContainerState, write_state},
    server::Server,
};

/// An error of the log crate, as everybody else's.
pub(crate) fn log_error(doing: String, error: kevel_cri_logs::Error) -> Error {
    Error::internal(doing).with_source(error)
}

impl Server {
    /// How containers' output is written.
    pub(crate) fn log_settings(&self) -> Settings {
        Settings { max_line: self.settings.config.max_container_log_line_size, ..Settings::default() }
    }

    /// The container of that name, if it runs.
    pub(crate) fn running(&self, id: &str) -> Result<Arc<Container>> {
        let container = self.index.container(id)?;
        if container.state.cri() != CriState::ContainerRunning {
            return Err(Error::failed_precondition(format!("container {} is not running", container.record.id)));
        }
        Ok(container)
    }

    /// Changes a container's state in memory, then on disk.
    pub(crate) async fn set_state(&self, id: &str, change: impl FnOnce(&mut ContainerState)) -> Result<()> {
        self.save_state(id, self.index.change_state(id, None, change)).await
    }

    /// As [`Server::set_state`], and tells whoever listens what that was.
    pub(crate) async fn set_state_and_tell(
        &self,
        id: &str,
        what: ContainerEventType,
        change: impl FnOnce(&mut ContainerState),
    ) -> Result<()> {
        self.save_state(id, self.index.change_state(id, Some(what), change)).await
    }

    async fn save_state(&self, id: &str, state: Option<Arc<ContainerState>>) -> Result<()> {
        let Some(state) = state else { return Ok(()) };
        let path = self.settings.files.status(id);
        blocking(move || write_state(&path, &state)).await
    }
}
