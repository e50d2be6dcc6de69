//! What a client's streams are connected to: whoever runs containers implements [`Runtime`].

use async_trait::async_trait;
use kevel_model::Result;

use crate::{
    request::{Attach, Exec},
    session::{Session, Tunnel},
};

/// Runs commands, attaches and connects. Every call ends some time after its client is gone.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Runs a command until it has ended and all its output is sent; answers its exit code.
    async fn exec(&self, request: Exec, session: Session) -> Result<i32>;
    /// Connects to a container's first process until that has ended or the client lets go.
    async fn attach(&self, request: Attach, session: Session) -> Result<()>;
    /// Connects to a port on a pod's loopback and copies until both directions have ended.
    async fn port_forward(&self, pod_id: &str, port: u16, tunnel: Tunnel) -> Result<()>;
}
