//! The sandbox controller `shim`: sandboxes by the sandbox service of their shims.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    sandbox::{ControllerBackend, Create, Exit, NOT_READY, Sandbox, Started, Status},
    task::Metric,
};
use kevel_model::{Context as _, Error, Platform, Result};
use kevel_proto::{
    containerd::types,
    shim::sandbox::{
        CreateSandboxRequest, CreateSandboxResponse, PlatformRequest, PlatformResponse, SandboxMetricsRequest,
        SandboxMetricsResponse, SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest,
        ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse, StopSandboxRequest, StopSandboxResponse,
        UpdateSandboxRequest, UpdateSandboxResponse, WaitSandboxRequest, WaitSandboxResponse, method,
    },
    shim::task::DeleteResponse,
};
use kevel_ttrpc::Code;
use tracing::Instrument as _;

use crate::{
    Dirs, Protocol, Role, Shim, ShimManager,
    manager::{Join, Launch, deleted},
    shim::is,
    wire,
};

/// The sandbox controller over the shims of this node.
#[derive(Clone, Debug)]
pub struct ShimController {
    shims: ShimManager,
    dirs: Dirs,
}

impl ShimController {
    /// A controller whose bundles are in `dirs`.
    pub fn new(shims: ShimManager, dirs: Dirs) -> Self {
        Self { shims, dirs }
    }

    async fn shim(&self, scope: &Scope, id: &str) -> crate::Result<Arc<Shim>> {
        self.shims.get(&scope.namespace, id, Role::Sandbox).await
    }

    async fn create_sandbox(&self, scope: &Scope, create: Create) -> Result<()> {
        let Create { sandbox, rootfs, options, netns_path, annotations } = create;
        let id = sandbox.id;
        let launch = Launch {
            namespace: scope.namespace.clone(),
            id: id.clone(),
            role: Role::Sandbox,
            dirs: self.dirs.clone(),
            spec: sandbox.spec.map(|spec| spec.value),
            options: sandbox.runtime.options,
            runtime: sandbox.runtime.name,
            runtime_path: String::new(),
            join: Join::Alone,
        };
        let shim = self.shims.start(launch).await.context(|| format!("starting the shim of sandbox {id}"))?;
        let request = CreateSandboxRequest {
            sandbox_id: id.clone(),
            bundle_path: shim.bundle.path.display().to_string(),
            rootfs: rootfs.into_iter().map(wire::mount).collect(),
            options: options.map(wire::any),
            netns_path,
            annotations,
        };
        let limit = Some(self.shims.timeouts().work);
        let answer = shim.sandbox::<_, CreateSandboxResponse>(method::CREATE_SANDBOX, &request, limit).await;
        if let Err(error) = answer {
            self.end(&shim).await;
            return Err(error).context(|| format!("creating sandbox {id}"));
        }
        Ok(())
    }

    /// Ends a sandbox's shim and removes every trace.
    async fn end(&self, shim: &Shim) {
        let _ending = shim.ending.lock().await;
        if shim.gone.is_cancelled() {
            return;
        }
        let request = ShutdownSandboxRequest { sandbox_id: shim.id.clone() };
        let limit = Some(self.shims.timeouts().work);
        let answer = shim.sandbox::<_, ShutdownSandboxResponse>(method::SHUTDOWN_SANDBOX, &request, limit).await;
        match answer {
            Ok(_) => self.shims.forget(shim).await,
            Err(_) if shim.is_closed() => self.shims.forget(shim).await,
            Err(error) => {
                let error = Error::from(error).chain();
                tracing::warn!(id = shim.id, error, "a sandbox did not take its shutdown");
                self.shims.release(shim).await;
            }
        }
    }

    fn task_api(shim: &Shim) -> (String, u32) {
        let protocol = match shim.bootstrap.protocol {
            Protocol::Ttrpc => "ttrpc",
            Protocol::Grpc => "grpc",
        };
        (format!("{protocol}+{}", shim.bootstrap.address), shim.version())
    }

    /// How a sandbox that is gone ended, if that is still known.
    fn ended(&self, scope: &Scope, id: &str) -> Option<Exit> {
        let exit = self.shims.exit(&scope.namespace, id)?.exit;
        Some(Exit { status: exit.status, at: exit.at })
    }
}

#[async_trait]
impl ControllerBackend for ShimController {
    async fn create(&self, scope: &Scope, create: Create) -> Result<()> {
        let (this, scope) = (self.clone(), scope.clone());
        let work = tokio::spawn(async move { this.create_sandbox(&scope, create).await }.in_current_span());
        work.await.map_err(|error| Error::internal("creating a sandbox ended early").with_source(error))?
    }

    async fn start(&self, scope: &Scope, id: &str) -> Result<Started> {
        let shim = self.shim(scope, id).await?;
        let request = StartSandboxRequest { sandbox_id: id.to_owned() };
        let limit = Some(self.shims.timeouts().work);
        let answer: StartSandboxResponse = match shim.sandbox(method::START_SANDBOX, &request, limit).await {
            Ok(answer) => answer,
            Err(error) => {
                self.end(&shim).await;
                return Err(error).context(|| format!("starting sandbox {id}"));
            }
        };
        let (address, version) = Self::task_api(&shim);
        Ok(Started {
            pid: answer.pid,
            created_at: wire::time(answer.created_at),
            address,
            version,
            spec: answer.spec.map(wire::from_any),
            ..Started::default()
        })
    }

    async fn platform(&self, scope: &Scope, id: &str) -> Result<Platform> {
        let shim = self.shim(scope, id).await?;
        let request = PlatformRequest { sandbox_id: id.to_owned() };
        let limit = Some(self.shims.timeouts().quick);
        let answer: PlatformResponse = shim.sandbox(method::PLATFORM, &request, limit).await?;
        let platform = answer.platform.unwrap_or_default();
        Ok(Platform {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            ..Platform::default()
        })
    }

    async fn stop(&self, scope: &Scope, id: &str, timeout: Duration) -> Result<()> {
        let shim = match self.shim(scope, id).await {
            Err(_) if self.ended(scope, id).is_some() => return Ok(()),
            shim => shim?,
        };
        let timeout_secs = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        let request = StopSandboxRequest { sandbox_id: id.to_owned(), timeout_secs };
        let limit = self.shims.timeouts().work.checked_add(timeout);
        match shim.sandbox::<_, StopSandboxResponse>(method::STOP_SANDBOX, &request, limit).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_closed() || is(&error, Code::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn wait(&self, scope: &Scope, id: &str) -> Result<Exit> {
        let ended = |error: crate::Error| self.ended(scope, id).ok_or_else(|| error.into());
        let shim = match self.shim(scope, id).await {
            Ok(shim) => shim,
            Err(error) => return ended(error),
        };
        let request = WaitSandboxRequest { sandbox_id: id.to_owned() };
        match shim.sandbox::<_, WaitSandboxResponse>(method::WAIT_SANDBOX, &request, None).await {
            Ok(answer) => {
                let response = DeleteResponse { pid: 0, exit_status: answer.exit_status, exited_at: answer.exited_at };
                let exit = deleted(id, response).exit;
                Ok(Exit { status: exit.status, at: exit.at })
            }
            Err(error) if error.is_closed() => {
                let _ = tokio::time::timeout(self.shims.timeouts().cleanup * 2, shim.gone.cancelled()).await;
                ended(error)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn status(&self, scope: &Scope, id: &str, verbose: bool) -> Result<Status> {
        let shim = match (self.shim(scope, id).await, self.ended(scope, id)) {
            (Err(_), Some(exit)) => {
                return Ok(Status { state: NOT_READY.into(), exited_at: Some(exit.at), ..Status::default() });
            }
            (shim, _) => shim?,
        };
        let request = SandboxStatusRequest { sandbox_id: id.to_owned(), verbose };
        let limit = Some(self.shims.timeouts().state);
        let answer: SandboxStatusResponse = shim.sandbox(method::SANDBOX_STATUS, &request, limit).await?;
        let (address, version) = Self::task_api(&shim);
        Ok(Status {
            pid: answer.pid,
            state: answer.state,
            info: answer.info.into_iter().collect(),
            created_at: wire::time(answer.created_at),
            exited_at: wire::time(answer.exited_at),
            extra: answer.extra.map(wire::from_any),
            address,
            version,
        })
    }

    async fn shutdown(&self, scope: &Scope, id: &str) -> Result<()> {
        if let Ok(shim) = self.shim(scope, id).await {
            self.end(&shim).await;
        }
        Ok(())
    }

    async fn metrics(&self, scope: &Scope, id: &str) -> Result<Metric> {
        let shim = self.shim(scope, id).await?;
        let request = SandboxMetricsRequest { sandbox_id: id.to_owned() };
        let limit = Some(self.shims.timeouts().stats);
        let answer: SandboxMetricsResponse = shim.sandbox(method::SANDBOX_METRICS, &request, limit).await?;
        let metrics = answer.metrics.unwrap_or_default();
        Ok(Metric {
            timestamp: wire::time(metrics.timestamp).unwrap_or_else(std::time::SystemTime::now),
            id: id.to_owned(),
            data: metrics.data.map(wire::from_any),
        })
    }

    async fn update(&self, scope: &Scope, sandbox: Sandbox, fieldpaths: &[String]) -> Result<()> {
        let shim = self.shim(scope, &sandbox.id).await?;
        let request = UpdateSandboxRequest {
            sandbox_id: sandbox.id.clone(),
            sandbox: Some(record(sandbox)),
            fields: fieldpaths.to_vec(),
            ..UpdateSandboxRequest::default()
        };
        let limit = Some(self.shims.timeouts().quick);
        shim.sandbox::<_, UpdateSandboxResponse>(method::UPDATE_SANDBOX, &request, limit).await?;
        Ok(())
    }
}

/// A record as the shim reads it.
fn record(sandbox: Sandbox) -> types::Sandbox {
    let extensions: BTreeMap<_, _> = sandbox.extensions.into_iter().map(|(name, any)| (name, wire::any(any))).collect();
    types::Sandbox {
        sandbox_id: sandbox.id,
        runtime: Some(types::sandbox::Runtime {
            name: sandbox.runtime.name,
            options: sandbox.runtime.options.map(wire::any),
        }),
        spec: sandbox.spec.map(wire::any),
        labels: sandbox.labels.into_iter().collect(),
        created_at: Some(wire::timestamp(sandbox.created_at)),
        updated_at: Some(wire::timestamp(sandbox.updated_at)),
        extensions,
        sandboxer: sandbox.sandboxer,
    }
}
