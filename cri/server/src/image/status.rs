//! ImageStatus.

use std::collections::BTreeMap;

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::{ImageStatusRequest, ImageStatusResponse};
use serde_json::json;

use super::Images;

impl Images {
    /// An image; none is no error.
    pub(crate) fn status(&self, request: &ImageStatusRequest) -> Result<ImageStatusResponse> {
        let name = request.image.as_ref().map_or("", |image| image.image.as_str());
        if name.is_empty() {
            return Err(Error::invalid_argument("image.image: empty"));
        }
        let Ok(image) = self.find(name) else { return Ok(ImageStatusResponse::default()) };
        let mut info = BTreeMap::new();
        if request.verbose {
            let config = &image.config;
            let details = json!({
                "chainID": image.chain_id,
                "imageSpec": { "config": {
                    "User": config.user, "Env": config.env, "Entrypoint": config.entrypoint, "Cmd": config.cmd,
                    "WorkingDir": config.working_dir, "StopSignal": config.stop_signal, "Volumes": config.volumes,
                }},
            });
            info.insert("info".to_owned(), details.to_string());
        }
        Ok(ImageStatusResponse { image: Some(image.describe()), info: info.into_iter().collect() })
    }
}
