//! The sandbox service.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kevel_proto::shim::sandbox::*;
use kevel_ttrpc::{
    Context, Service, Status,
    server::{decode, encode},
};

use super::{Services, to_the_end};

/// The sandbox service. A method that is not implemented says so, which daemons know what to make of. Those that change something run to
/// their end even when the caller hangs up.
#[async_trait]
pub trait Sandboxes: Send + Sync + 'static {
    /// Prepares a sandbox; comes before any task.
    async fn create_sandbox(&self, request: CreateSandboxRequest) -> Result<CreateSandboxResponse, Status> {
        let _ = request;
        Err(unimplemented(method::CREATE_SANDBOX))
    }

    /// Runs what was prepared.
    async fn start_sandbox(&self, request: StartSandboxRequest) -> Result<StartSandboxResponse, Status> {
        let _ = request;
        Err(unimplemented(method::START_SANDBOX))
    }

    /// The platform of containers in the sandbox.
    async fn platform(&self, request: PlatformRequest) -> Result<PlatformResponse, Status> {
        let _ = request;
        Err(unimplemented(method::PLATFORM))
    }

    /// Stops the sandbox.
    async fn stop_sandbox(&self, request: StopSandboxRequest) -> Result<StopSandboxResponse, Status> {
        let _ = request;
        Err(unimplemented(method::STOP_SANDBOX))
    }

    /// Waits for its end.
    async fn wait_sandbox(&self, request: WaitSandboxRequest) -> Result<WaitSandboxResponse, Status> {
        let _ = request;
        Err(unimplemented(method::WAIT_SANDBOX))
    }

    /// Its state.
    async fn sandbox_status(&self, request: SandboxStatusRequest) -> Result<SandboxStatusResponse, Status> {
        let _ = request;
        Err(unimplemented(method::SANDBOX_STATUS))
    }

    /// Answers while the sandbox lives.
    async fn ping_sandbox(&self, request: PingRequest) -> Result<PingResponse, Status> {
        let _ = request;
        Err(unimplemented(method::PING_SANDBOX))
    }

    /// Frees everything and ends the shim.
    async fn shutdown_sandbox(&self, request: ShutdownSandboxRequest) -> Result<ShutdownSandboxResponse, Status> {
        let _ = request;
        Err(unimplemented(method::SHUTDOWN_SANDBOX))
    }

    /// What the sandbox uses.
    async fn sandbox_metrics(&self, request: SandboxMetricsRequest) -> Result<SandboxMetricsResponse, Status> {
        let _ = request;
        Err(unimplemented(method::SANDBOX_METRICS))
    }

    /// Changes a running sandbox.
    async fn update_sandbox(&self, request: UpdateSandboxRequest) -> Result<UpdateSandboxResponse, Status> {
        let _ = request;
        Err(unimplemented(method::UPDATE_SANDBOX))
    }
}

fn unimplemented(name: &str) -> Status {
    Status::unimplemented(format!("method {name}"))
}

/// Serves sandboxes.
pub fn services<T: Sandboxes>(sandboxes: Arc<T>) -> Services {
    vec![(SERVICE.to_owned(), Arc::new(Adapter(sandboxes)))]
}

struct Adapter<T>(Arc<T>);

#[async_trait]
impl<T: Sandboxes> Service for Adapter<T> {
    async fn call(&self, name: &str, payload: Bytes, _: Context) -> Result<Bytes, Status> {
        let own = self.0.clone();
        Ok(match name {
            method::CREATE_SANDBOX => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.create_sandbox(request).await }).await?)
            }
            method::START_SANDBOX => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.start_sandbox(request).await }).await?)
            }
            method::PLATFORM => encode(&own.platform(decode(payload)?).await?),
            method::STOP_SANDBOX => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.stop_sandbox(request).await }).await?)
            }
            method::WAIT_SANDBOX => encode(&own.wait_sandbox(decode(payload)?).await?),
            method::SANDBOX_STATUS => encode(&own.sandbox_status(decode(payload)?).await?),
            method::PING_SANDBOX => encode(&own.ping_sandbox(decode(payload)?).await?),
            method::SHUTDOWN_SANDBOX => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.shutdown_sandbox(request).await }).await?)
            }
            method::SANDBOX_METRICS => encode(&own.sandbox_metrics(decode(payload)?).await?),
            method::UPDATE_SANDBOX => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.update_sandbox(request).await }).await?)
            }
            _ => return Err(unimplemented(name)),
        })
    }
}
