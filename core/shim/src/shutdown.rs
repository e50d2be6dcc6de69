//! The end of a shim, which its services and signals ask for.

use tokio_util::sync::CancellationToken;

/// Asks for the end of the shim. Calls that run are answered, events that wait are sent, plugins are closed.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Ends the shim.
    pub fn now(&self) {
        self.0.cancel();
    }

    /// Waits until somebody ends it.
    pub async fn asked(&self) {
        self.0.cancelled().await;
    }
}
