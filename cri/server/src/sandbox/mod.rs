//! Pod sandboxes: a file for each RPC, and what they share.

mod list;
mod port_forward;
mod remove;
mod run;
mod stats;
mod status;
mod stop;
mod tend;
mod unfinished;
mod update_resources;
mod watch;

pub(crate) use unfinished::Unfinished;

use std::path::Path;

use kevel_contract::sandbox::Sandbox;
use kevel_cri_network::Netns;
use kevel_model::{Error, Result};

use crate::{
    counters::NetworkCall,
    record::{EXTENSION, KIND, SANDBOX, SandboxRecord},
    server::Server,
    translate,
};

/// An error of the network crate, as everybody else's.
pub(crate) fn network_error(doing: String, error: &kevel_cri_network::Error) -> Error {
    use kevel_cri_network::Kind;
    let chain = format!("{doing}: {}", error.chain());
    match error.kind() {
        Kind::InvalidArgument => Error::invalid_argument(chain),
        Kind::FailedPrecondition => Error::failed_precondition(chain),
        Kind::Unavailable => Error::unavailable(chain),
        Kind::DeadlineExceeded => Error::deadline_exceeded(chain),
        Kind::Internal => Error::internal(chain),
    }
}

impl Server {
    /// The sandbox of a record, for the store and for controllers.
    pub(crate) fn sandbox(&self, record: &SandboxRecord) -> Result<Sandbox> {
        Ok(Sandbox {
            runtime: self.settings.handler(&record.handler)?.runtime.clone(),
            labels: [(KIND.to_owned(), SANDBOX.to_owned())].into(),
            extensions: [(EXTENSION.to_owned(), record.pack()?)].into(),
            sandboxer: record.sandboxer.clone(),
            ..Sandbox::new(record.id.clone())
        })
    }

    /// Writes a record to the store, where it is already.
    pub(crate) async fn save_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        let mut sandbox = Sandbox::new(record.id.clone());
        sandbox.extensions = [(EXTENSION.to_owned(), record.pack()?)].into();
        self.sandboxes.update(&self.scope, sandbox, &[format!("extensions.{EXTENSION}")]).await.map(drop)
    }

    /// Takes a pod off its networks and removes its namespace. Repeating it is no error.
    pub(crate) async fn disconnect(&self, record: &SandboxRecord) -> Result<()> {
        if record.host_network() {
            return Ok(());
        }
        let pod = translate::network(&record.id, &record.config, &record.netns)?;
        let network = self.network(&record.handler)?;
        let detached = self.counters.network(NetworkCall::TearDown, network.detach(&pod)).await;
        detached.map_err(|error| network_error(format!("detaching sandbox {}", record.id), &error))?;
        let removed = Netns::at(Path::new(&record.netns)).remove().await;
        removed.map_err(|error| network_error(format!("removing the network of sandbox {}", record.id), &error))
    }
}
