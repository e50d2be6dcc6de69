//! Controller.Create

use kevel_client::convert::{any_read, need_text, sandbox, types};
use kevel_contract::{
    Scope,
    sandbox::{Create, Sandbox},
};
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerCreateRequest, ControllerCreateResponse};

pub(super) async fn create(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerCreateRequest,
) -> Result<ControllerCreateResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    let create = Create {
        // Clients older than the record in the request send the id alone.
        sandbox: match request.sandbox {
            Some(record) => sandbox::read(Some(record))?,
            None => Sandbox::new(&request.sandbox_id),
        },
        rootfs: types::mounts_read(request.rootfs),
        options: request.options.map(any_read),
        netns_path: request.netns_path,
        annotations: request.annotations,
    };
    controller.create(&scope, create).await?;
    Ok(ControllerCreateResponse { sandbox_id: request.sandbox_id })
}
