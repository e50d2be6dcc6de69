//! ReopenContainerLog.

use kevel_model::{Error, Result};

use super::log_error;
use crate::server::Server;

impl Server {
    /// Goes on in a new file, after the kubelet renamed the old one.
    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.index.container(id)?;
        let id = &container.record.id;
        let life = self.life(id).ok_or_else(|| Error::failed_precondition(format!("container {id} is not running")))?;
        match &life.io {
            Some(io) => io.log().reopen().await.map_err(|error| log_error(format!("reopening the log of {id}"), error)),
            None => Err(Error::failed_precondition(format!("container {id} has no streams"))),
        }
    }
}
