//! The services that a daemon calls in a shim, typed: traits for authors, and what makes ttrpc services of them.

pub mod sandbox;
pub mod task;

use std::sync::Arc;

use kevel_ttrpc::{Code, Service, Status};

/// What a plugin serves: services by their full names.
pub type Services = Vec<(String, Arc<dyn Service>)>;

/// Runs a handler to its end, whether or not its caller waits: half a create is worse than one that nobody asked for.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|_| Err(Status::new(Code::Internal, "the handler panicked")))
}
