//! The task service: one trait, served under the names of both versions, whose messages are the same.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kevel_proto::shim::task::*;
use kevel_ttrpc::{
    Context, Service, Status,
    server::{decode, encode},
};

use super::{Services, to_the_end};

/// The task service. A method that is not implemented says so, which daemons know what to make of. Those that change something run to
/// their end even when the caller hangs up.
#[async_trait]
pub trait Tasks: Send + Sync + 'static {
    /// State of a process.
    async fn state(&self, request: StateRequest) -> Result<StateResponse, Status> {
        let _ = request;
        Err(unimplemented(method::STATE))
    }

    /// Makes a container up to where its program would be executed.
    async fn create(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse, Status> {
        let _ = request;
        Err(unimplemented(method::CREATE))
    }

    /// Executes the program of a created process.
    async fn start(&self, request: StartRequest) -> Result<StartResponse, Status> {
        let _ = request;
        Err(unimplemented(method::START))
    }

    /// Removes a stopped process and tells how it ended.
    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, Status> {
        let _ = request;
        Err(unimplemented(method::DELETE))
    }

    /// The processes of a container.
    async fn pids(&self, request: PidsRequest) -> Result<PidsResponse, Status> {
        let _ = request;
        Err(unimplemented(method::PIDS))
    }

    /// Freezes a container.
    async fn pause(&self, request: PauseRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::PAUSE))
    }

    /// Lets a frozen container run on.
    async fn resume(&self, request: ResumeRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::RESUME))
    }

    /// Writes a container to disk.
    async fn checkpoint(&self, request: CheckpointTaskRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::CHECKPOINT))
    }

    /// Sends a signal.
    async fn kill(&self, request: KillRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::KILL))
    }

    /// Adds a process; start runs it.
    async fn exec(&self, request: ExecProcessRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::EXEC))
    }

    /// Changes the size of a terminal.
    async fn resize_pty(&self, request: ResizePtyRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::RESIZE_PTY))
    }

    /// Closes the standard input of a process.
    async fn close_io(&self, request: CloseIoRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::CLOSE_IO))
    }

    /// Changes what a container may use.
    async fn update(&self, request: UpdateTaskRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::UPDATE))
    }

    /// Waits for the end of a process.
    async fn wait(&self, request: WaitRequest) -> Result<WaitResponse, Status> {
        let _ = request;
        Err(unimplemented(method::WAIT))
    }

    /// What a container uses.
    async fn stats(&self, request: StatsRequest) -> Result<StatsResponse, Status> {
        let _ = request;
        Err(unimplemented(method::STATS))
    }

    /// Who serves a task.
    async fn connect(&self, request: ConnectRequest) -> Result<ConnectResponse, Status> {
        let _ = request;
        Err(unimplemented(method::CONNECT))
    }

    /// Ends the shim, if there are no other containers.
    async fn shutdown(&self, request: ShutdownRequest) -> Result<(), Status> {
        let _ = request;
        Err(unimplemented(method::SHUTDOWN))
    }
}

fn unimplemented(name: &str) -> Status {
    Status::unimplemented(format!("method {name}"))
}

/// Serves tasks as version 2 and as version 3.
pub fn services<T: Tasks>(tasks: Arc<T>) -> Services {
    let service: Arc<dyn Service> = Arc::new(Adapter(tasks));
    vec![(SERVICE_V2.to_owned(), service.clone()), (SERVICE_V3.to_owned(), service)]
}

struct Adapter<T>(Arc<T>);

#[async_trait]
impl<T: Tasks> Service for Adapter<T> {
    async fn call(&self, name: &str, payload: Bytes, _: Context) -> Result<Bytes, Status> {
        let own = self.0.clone();
        Ok(match name {
            method::STATE => encode(&own.state(decode(payload)?).await?),
            method::CREATE => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.create(request).await }).await?)
            }
            method::START => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.start(request).await }).await?)
            }
            method::DELETE => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.delete(request).await }).await?)
            }
            method::PIDS => encode(&own.pids(decode(payload)?).await?),
            method::PAUSE => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.pause(request).await }).await?)
            }
            method::RESUME => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.resume(request).await }).await?)
            }
            method::CHECKPOINT => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.checkpoint(request).await }).await?)
            }
            method::KILL => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.kill(request).await }).await?)
            }
            method::EXEC => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.exec(request).await }).await?)
            }
            method::RESIZE_PTY => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.resize_pty(request).await }).await?)
            }
            method::CLOSE_IO => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.close_io(request).await }).await?)
            }
            method::UPDATE => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.update(request).await }).await?)
            }
            method::WAIT => encode(&own.wait(decode(payload)?).await?),
            method::STATS => encode(&own.stats(decode(payload)?).await?),
            method::CONNECT => encode(&own.connect(decode(payload)?).await?),
            method::SHUTDOWN => {
                let request = decode(payload)?;
                encode(&to_the_end(async move { own.shutdown(request).await }).await?)
            }
            _ => return Err(unimplemented(name)),
        })
    }
}
