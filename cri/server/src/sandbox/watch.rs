//! The end of a sandbox that nobody asked for.

use std::{sync::Arc, time::Duration};

use crate::{identity, server::Server};

/// Between two attempts to wait, when the controller cannot.
const PAUSE: Duration = Duration::from_secs(1);

impl Server {
    /// Marks the sandbox as not ready when its process ends.
    pub(crate) fn watch_sandbox(self: &Arc<Self>, id: String) {
        let server = self.clone();
        tokio::spawn(async move {
            let at = loop {
                let Ok(pod) = server.index.pod(&id) else { return };
                let Ok(controller) = server.controller(&pod.record.sandboxer) else { return };
                match controller.wait(&server.scope, &id).await {
                    Ok(exit) => break identity::nanos(exit.at),
                    Err(error) => tracing::debug!(sandbox = id, error = error.chain(), "waiting for a sandbox"),
                }
                tokio::time::sleep(PAUSE).await;
            };
            server.end_sandbox(&id, at);
        });
    }

    /// Says that a sandbox has ended, once.
    pub(crate) fn end_sandbox(&self, id: &str, at: i64) {
        self.index.end_pod(id, at);
    }
}
