//! What clients of the streaming server get: the other halves of Exec, Attach and PortForward.

use std::sync::Arc;

use async_trait::async_trait;
use kevel_cri_streaming::{Attach, Exec, Runtime, Session, Tunnel};
use kevel_model::Result;

use crate::server::Server;

/// Answers for the server.
pub struct StreamingRuntime {
    server: Arc<Server>,
}

impl StreamingRuntime {
    /// Answers for `server`.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server }
    }
}

#[async_trait]
impl Runtime for StreamingRuntime {
    async fn exec(&self, request: Exec, session: Session) -> Result<i32> {
        self.server.run_exec(request, session).await
    }

    async fn attach(&self, request: Attach, session: Session) -> Result<()> {
        self.server.run_attach(request, session).await
    }

    async fn port_forward(&self, pod_id: &str, port: u16, tunnel: Tunnel) -> Result<()> {
        self.server.run_port_forward(pod_id, port, tunnel).await
    }
}
