//! Version.

use kevel_proto::runtime::v1::VersionResponse;

use crate::server::Server;

impl Server {
    /// Who answers. The kubelet's own interface is always 0.1.0.
    pub(crate) fn version(&self) -> VersionResponse {
        VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "kevel".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }
    }
}
