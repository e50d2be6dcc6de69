//! `containerd.services.version.v1.Version`.

mod server {
    pub(super) use kevel_proto::containerd::services::version::v1::{
        VersionResponse,
        version_server::{Version, VersionServer},
    };
}

use tonic::{Request, Response, Status};

use crate::Offer;

/// Says the daemon's version.
#[derive(Clone, Debug)]
pub struct Version {
    /// The version, e.g. `0.1.0`.
    pub version: String,
    /// The source revision; empty when not known.
    pub revision: String,
}

#[tonic::async_trait]
impl server::Version for Version {
    async fn version(&self, _: Request<()>) -> Result<Response<server::VersionResponse>, Status> {
        let Self { version, revision } = self.clone();
        Ok(Response::new(server::VersionResponse { version, revision }))
    }
}

impl Version {
    /// The service as a plugin offers it.
    pub fn offer(self) -> Offer {
        let server = server::VersionServer::new(self);
        Offer::grpc(move |routes| {
            routes.add_service(server.clone());
        })
    }
}
