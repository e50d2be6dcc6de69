//! Containers held still for a checkpoint. That is noted in a file first, so that a daemon that dies meanwhile is followed
//! by one that lets them go on.

use std::{fs, io};

use kevel_contract::task::State;
use kevel_model::{Error, Result};

use crate::{files::blocking, server::Server};

/// The note, in a container's state directory, which goes with the container.
const FILE: &str = "frozen";

impl Server {
    /// Holds a container still. One that is held still already, by somebody else, is not ours to let go on.
    pub(super) async fn freeze(&self, id: &str) -> Result<()> {
        if self.tasks.get(&self.scope, id, "").await?.state != State::Running {
            return Err(Error::failed_precondition(format!("container {id}: its processes are paused, or ending")));
        }
        let note = self.settings.files.container_state(id).join(FILE);
        blocking(move || fs::write(&note, "").map_err(|error| Error::io(format!("writing {}", note.display()), error)))
            .await?;
        let frozen = self.tasks.pause(&self.scope, id).await;
        if frozen.is_err() {
            self.thaw(id).await;
        }
        frozen.map_err(|error| error.context(format!("pausing container {id}")))
    }

    /// Lets a container that [`Server::freeze`] holds go on. It may have ended, or be running after all.
    pub(crate) async fn thaw(&self, id: &str) {
        let note = self.settings.files.container_state(id).join(FILE);
        let at = note.clone();
        if !blocking(move || Ok(at.exists())).await.unwrap_or(true) {
            return;
        }
        if let Err(error) = self.tasks.resume(&self.scope, id).await {
            // Runtimes refuse to let go on what is not held; what else is wrong shows in how it is now.
            if self.tasks.get(&self.scope, id, "").await.is_ok_and(|now| now.state == State::Paused) {
                tracing::error!(container = id, error = error.chain(), "a container stays paused");
                return; // the note stays, and the next daemon tries again
            }
        }
        let removed = blocking(move || match fs::remove_file(&note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", note.display()), error))
            }
            _ => Ok(()),
        });
        if let Err(error) = removed.await {
            tracing::warn!(container = id, error = error.chain(), "a note stays");
        }
    }
}
