//! RuntimeConfig: who manages cgroups.

use std::path::Path;

use kevel_proto::runtime::v1::{CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigResponse};

use crate::server::Server;

impl Server {
    /// What the default handler's options say; else another handler of runc's; else whether systemd runs the node.
    pub(crate) fn runtime_config(&self) -> RuntimeConfigResponse {
        let handlers = self.settings.handlers();
        let default = handlers.get("").ok();
        let all = handlers.iter().map(|(_, handler)| handler);
        let runc = default.iter().chain(all).find(|handler| handler.is_runc());
        let systemd = match runc {
            Some(handler) => handler.systemd_cgroup(),
            None => Path::new("/run/systemd/system").exists(),
        };
        let driver = if systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: driver as i32 }) }
    }
}
