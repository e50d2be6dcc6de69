//! What plugins call: `RegisterPlugin` once, then `UpdateContainers` when they like.

use std::sync::{Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use kevel_ttrpc::{
    Code, Context, Service, Status,
    server::{encode, unary},
};
use tokio::sync::oneshot;

use crate::{
    api::{Empty, RegisterPluginRequest, UpdateContainersRequest, UpdateContainersResponse},
    name,
    nri::Nri,
};

/// The service of one connection.
pub(crate) struct Runtime {
    nri: Weak<Nri>,
    /// What a plugin that the daemon started is called, whatever it says.
    given: Option<(String, String)>,
    registered: Mutex<Option<oneshot::Sender<(String, String)>>>,
    /// The plugin's full name, once it may update containers.
    admitted: OnceLock<String>,
}

impl Runtime {
    pub(crate) fn new(
        nri: Weak<Nri>,
        given: Option<(String, String)>,
        registered: oneshot::Sender<(String, String)>,
    ) -> Self {
        Self { nri, given, registered: Mutex::new(Some(registered)), admitted: OnceLock::new() }
    }

    /// Lets the plugin update containers.
    pub(crate) fn admit(&self, full_name: &str) {
        let _ = self.admitted.set(full_name.to_owned());
    }

    async fn register(&self, request: RegisterPluginRequest) -> Result<Empty, Status> {
        let name = match &self.given {
            Some(given) => given.clone(),
            None => {
                let checked = name::check(&request.plugin_idx, &request.plugin_name);
                checked.map_err(|error| Status::invalid(error.to_string()))?;
                (request.plugin_idx, request.plugin_name)
            }
        };
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner).take();
        let registered = registered.ok_or_else(|| Status::new(Code::AlreadyExists, "the plugin has registered"))?;
        let version: String = request.nri_version.chars().take(64).collect();
        tracing::info!(plugin = format!("{}-{}", name.0, name.1), version, "an NRI plugin registers");
        registered.send(name).map_err(|_| Status::new(Code::DeadlineExceeded, "the registration came too late"))?;
        Ok(Empty {})
    }

    async fn update(&self, request: UpdateContainersRequest) -> Result<UpdateContainersResponse, Status> {
        let plugin = self.admitted.get();
        let plugin = plugin.ok_or_else(|| Status::new(Code::FailedPrecondition, "the plugin has not registered"))?;
        let nri = self.nri.upgrade().ok_or_else(|| Status::new(Code::Unavailable, "the daemon is stopping"))?;
        tracing::debug!(plugin, updates = request.update.len(), evict = request.evict.len(), "an NRI plugin updates");
        // A task of its own: what has begun goes on when the plugin hangs up.
        let work = tokio::spawn(async move { nri.apply(request.update, request.evict).await });
        let failed = work.await.map_err(|_| Status::new(Code::Internal, "updating containers failed"))?;
        Ok(UpdateContainersResponse { failed })
    }
}

/// A service that several may hold.
pub(crate) struct Shared(pub(crate) std::sync::Arc<Runtime>);

#[async_trait::async_trait]
impl Service for Shared {
    async fn call(&self, method: &str, payload: Bytes, _: Context) -> Result<Bytes, Status> {
        match method {
            "RegisterPlugin" => unary(payload, |request| self.0.register(request)).await,
            "UpdateContainers" => {
                let request = kevel_ttrpc::server::decode(payload)?;
                Ok(encode(&self.0.update(request).await?))
            }
            other => Err(Status::unimplemented(format!("method {other} of the NRI runtime"))),
        }
    }
}
