//! CDI devices of a container, put into its spec. What specs of devices say is `kevel-cri-cdi`'s.

use std::collections::BTreeMap;

use kevel_cri_cdi::{Device, Registry};
use kevel_cri_spec::Spec;
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::ContainerConfig;

use crate::{files::blocking, server::Server};

/// The CDI devices that a request asks for, by its field or by annotations.
pub(super) fn requested(config: &ContainerConfig) -> Result<Vec<Device>> {
    for (index, device) in config.cdi_devices.iter().enumerate() {
        // Each alone first, so that a wrong one is named by its field.
        let alone = kevel_cri_cdi::requested([device.name.as_str()], &BTreeMap::new());
        alone.map_err(|error| Error::from(error).context(format!("config.CDI_devices[{index}].name")))?;
    }
    let names = config.cdi_devices.iter().map(|device| device.name.as_str());
    Ok(kevel_cri_cdi::requested(names, &config.annotations)?)
}

/// Specs of devices are read when a container wants one: what a vendor changed counts at once.
pub(super) async fn inject(server: &Server, config: &ContainerConfig, spec: Spec) -> Result<Spec> {
    let devices = requested(config)?;
    if devices.is_empty() {
        return Ok(spec);
    }
    let registry = registry(server).await?;
    let mut document = spec.into_value();
    registry.inject(&mut document, &devices)?;
    Ok(Spec::new(document)?)
}

/// The devices that are described now.
pub(crate) async fn registry(server: &Server) -> Result<Registry> {
    let settings = server.settings.clone();
    blocking(move || {
        let registry = Registry::read(&settings.config.cdi_spec_dirs)?;
        for (path, why) in registry.bad() {
            tracing::warn!(path = %path.display(), why, "file is no CDI spec");
        }
        Ok(registry)
    })
    .await
}
