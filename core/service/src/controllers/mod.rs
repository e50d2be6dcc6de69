//! `containerd.services.sandbox.v1.Controller` over sandbox controllers by name.

mod create;
mod metrics;
mod platform;
mod shutdown;
mod start;
mod status;
mod stop;
mod update;
mod wait;

use std::{collections::BTreeMap, sync::Arc};

use kevel_contract::sandbox::SandboxController;
use kevel_model::{Error, Result};
use kevel_proto::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerCreateResponse, ControllerMetricsRequest, ControllerMetricsResponse,
    ControllerPlatformRequest, ControllerPlatformResponse, ControllerShutdownRequest, ControllerShutdownResponse,
    ControllerStartRequest, ControllerStartResponse, ControllerStatusRequest, ControllerStatusResponse,
    ControllerStopRequest, ControllerStopResponse, ControllerUpdateRequest, ControllerUpdateResponse,
    ControllerWaitRequest, ControllerWaitResponse,
};

/// Controllers by name.
type Controllers = Arc<BTreeMap<String, SandboxController>>;

crate::call::service! {
    /// The sandbox controllers.
    Controller over Controllers as ControllerServer in kevel_proto::containerd::services::sandbox::v1::controller_server {
        change create(ControllerCreateRequest) -> ControllerCreateResponse;
        change start(ControllerStartRequest) -> ControllerStartResponse;
        read platform(ControllerPlatformRequest) -> ControllerPlatformResponse;
        change stop(ControllerStopRequest) -> ControllerStopResponse;
        read wait(ControllerWaitRequest) -> ControllerWaitResponse;
        read status(ControllerStatusRequest) -> ControllerStatusResponse;
        change shutdown(ControllerShutdownRequest) -> ControllerShutdownResponse;
        read metrics(ControllerMetricsRequest) -> ControllerMetricsResponse;
        change update(ControllerUpdateRequest) -> ControllerUpdateResponse;
    }
}

/// The controller that a request names.
fn pick<'a>(controllers: &'a Controllers, name: &str) -> Result<&'a SandboxController> {
    kevel_client::convert::need_text("sandboxer", name)?;
    controllers.get(name).ok_or_else(|| Error::not_found(format!("no sandbox controller {name:?}")))
}
