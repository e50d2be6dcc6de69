//! Sandbox records and sandbox controllers behind a socket.

use std::time::Duration;

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    sandbox::{
        ControllerBackend, Create, Exit, Sandbox, SandboxController, SandboxStore, Started, Status, StoreBackend,
    },
    task::Metric,
};
use kevel_model::{Filters, Platform, Result};
use kevel_proto::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerMetricsRequest, ControllerPlatformRequest, ControllerShutdownRequest,
    ControllerStartRequest, ControllerStatusRequest, ControllerStopRequest, ControllerUpdateRequest,
    ControllerWaitRequest, StoreCreateRequest, StoreDeleteRequest, StoreGetRequest, StoreListRequest,
    StoreUpdateRequest, controller_client::ControllerClient, store_client::StoreClient,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{any_read, any_wire, need, optional_time_read, sandbox, time_read, types},
    remote::{answer, client, request},
};

/// A store of sandbox records behind a socket.
pub fn sandboxes(remote: &Remote) -> SandboxStore {
    SandboxStore::new(remote.target(), RemoteStore(remote.clone()))
}

/// The sandbox controller of that name behind a socket.
pub fn controller(remote: &Remote, name: impl Into<String>) -> SandboxController {
    SandboxController::new(remote.target(), RemoteController { remote: remote.clone(), name: name.into() })
}

struct RemoteStore(Remote);

impl RemoteStore {
    fn client(&self) -> StoreClient<Channel> {
        client!(StoreClient<Channel>, self.0)
    }
}

#[async_trait]
impl StoreBackend for RemoteStore {
    async fn get(&self, scope: &Scope, id: &str) -> Result<Sandbox> {
        let message = StoreGetRequest { sandbox_id: id.to_owned() };
        sandbox::read(answer(self.client().get(request(scope, message)?).await)?.sandbox)
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Sandbox>> {
        let message = StoreListRequest { filters: filters.sources().to_vec() };
        let found = answer(self.client().list(request(scope, message)?).await)?.list;
        found.into_iter().map(|found| sandbox::read(Some(found))).collect()
    }

    async fn create(&self, scope: &Scope, wanted: Sandbox) -> Result<Sandbox> {
        let message = StoreCreateRequest { sandbox: Some(sandbox::wire(wanted)) };
        sandbox::read(answer(self.client().create(request(scope, message)?).await)?.sandbox)
    }

    async fn update(&self, scope: &Scope, wanted: Sandbox, fieldpaths: &[String]) -> Result<Sandbox> {
        let message = StoreUpdateRequest { sandbox: Some(sandbox::wire(wanted)), fields: fieldpaths.to_vec() };
        sandbox::read(answer(self.client().update(request(scope, message)?).await)?.sandbox)
    }

    async fn delete(&self, scope: &Scope, id: &str) -> Result<()> {
        let message = StoreDeleteRequest { sandbox_id: id.to_owned() };
        answer(self.client().delete(request(scope, message)?).await).map(|_| ())
    }
}

struct RemoteController {
    remote: Remote,
    name: String,
}

impl RemoteController {
    fn client(&self) -> ControllerClient<Channel> {
        client!(ControllerClient<Channel>, self.remote)
    }

    /// The two names that every request has: the sandbox's and the controller's.
    fn names(&self, id: &str) -> (String, String) {
        (id.to_owned(), self.name.clone())
    }
}

#[async_trait]
impl ControllerBackend for RemoteController {
    async fn create(&self, scope: &Scope, create: Create) -> Result<()> {
        let (sandbox_id, sandboxer) = self.names(&create.sandbox.id);
        let message = ControllerCreateRequest {
            sandbox_id,
            rootfs: types::mounts_wire(create.rootfs),
            options: create.options.map(any_wire),
            netns_path: create.netns_path,
            annotations: create.annotations,
            sandbox: Some(sandbox::wire(create.sandbox)),
            sandboxer,
        };
        answer(self.client().create(self.remote.request(scope, message)?).await).map(|_| ())
    }

    async fn start(&self, scope: &Scope, id: &str) -> Result<Started> {
        let (sandbox_id, sandboxer) = self.names(id);
        let message = ControllerStartRequest { sandbox_id, sandboxer };
        let started = answer(self.client().start(self.remote.request(scope, message)?).await)?;
        Ok(Started {
            pid: started.pid,
            created_at: optional_time_read("created_at", started.created_at)?,
            labels: started.labels,
            address: started.address,
            version: started.version,
            spec: started.spec.map(any_read),
        })
    }

    async fn platform(&self, scope: &Scope, id: &str) -> Result<Platform> {
        let (sandbox_id, sandboxer) = self.names(id);
        let message = ControllerPlatformRequest { sandbox_id, sandboxer };
        let answer = answer(self.client().platform(self.remote.request(scope, message)?).await)?;
        need("platform", answer.platform).map(types::platform_read)
    }

    async fn stop(&self, scope: &Scope, id: &str, timeout: Duration) -> Result<()> {
        let (sandbox_id, sandboxer) = self.names(id);
        // Rounded up: a short grace must not become none.
        let timeout = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let timeout_secs = u32::try_from(timeout).unwrap_or(u32::MAX);
        let message = ControllerStopRequest { sandbox_id, timeout_secs, sandboxer };
        answer(self.client().stop(self.remote.request(scope, message)?).await).map(|_| ())
    }

    async fn wait(&self, scope: &Scope, id: &str) -> Result<Exit> {
        let (sandbox_id, sandboxer) = self.names(id);
        let message = ControllerWaitRequest { sandbox_id, sandboxer };
        let exit = answer(self.client().wait(self.remote.request(scope, message)?).await)?;
        Ok(Exit { status: exit.exit_status, at: time_read("exited_at", exit.exited_at)? })
    }

    async fn status(&self, scope: &Scope, id: &str, verbose: bool) -> Result<Status> {
        let (sandbox_id, sandboxer) = self.names(id);
        let message = ControllerStatusRequest { sandbox_id, verbose, sandboxer };
        let status = answer(self.client().status(self.remote.request(scope, message)?).await)?;
        Ok(Status {
            pid: status.pid,
            state: status.state,
            info: status.info,
            created_at: optional_time_read("created_at", status.created_at)?,
            exited_at: optional_time_read("exited_at", status.exited_at)?,
            extra: status.extra.map(any_read),
            address: status.address,
            version: status.version,
        })
    }

    async fn shutdown(&self, scope: &Scope, id: &str) -> Result<()> {
        let (sandbox_id, sandboxer) = self.names(id);
        let message = ControllerShutdownRequest { sandbox_id, sandboxer };
        answer(self.client().shutdown(self.remote.request(scope, message)?).await).map(|_| ())
    }

    async fn metrics(&self, scope: &Scope, id: &str) -> Result<Metric> {
        let (sandbox_id, sandboxer) = self.names(id);
        let message = ControllerMetricsRequest { sandbox_id, sandboxer };
        let answer = answer(self.client().metrics(self.remote.request(scope, message)?).await)?;
        types::metric_read(need("metrics", answer.metrics)?)
    }

    async fn update(&self, scope: &Scope, wanted: Sandbox, fieldpaths: &[String]) -> Result<()> {
        let (sandbox_id, sandboxer) = self.names(&wanted.id);
        let (sandbox, fields) = (Some(sandbox::wire(wanted)), fieldpaths.to_vec());
        let message = ControllerUpdateRequest { sandbox_id, sandboxer, sandbox, fields };
        answer(self.client().update(self.remote.request(scope, message)?).await).map(|_| ())
    }
}
