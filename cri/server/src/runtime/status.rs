//! Status.

use std::collections::BTreeMap;

use kevel_model::Result;
use kevel_proto::runtime::v1::{RuntimeCondition, RuntimeFeatures, RuntimeStatus, StatusResponse};
use serde_json::json;

use crate::server::Server;

impl Server {
    /// Whether pods can run and have a network, and what handlers can do.
    pub(crate) async fn runtime_status(&self, verbose: bool) -> Result<StatusResponse> {
        let network = self.default_network()?.status().await;
        let reason = if network.ready { "" } else { "NetworkPluginNotReady" };
        let conditions = vec![
            condition("RuntimeReady", true, "", ""),
            condition("NetworkReady", network.ready, reason, &network.reason),
        ];
        let mut info = BTreeMap::new();
        if verbose {
            let mut put = |key: &str, value: serde_json::Value| info.insert(key.to_owned(), value.to_string());
            put("config", serde_json::to_value(&self.settings.config).unwrap_or_default());
            put("imagesConfig", serde_json::to_value(&self.images.config).unwrap_or_default());
            put("cniconfig", self.default_network()?.describe());
            let load = match network.load.errors.is_empty() {
                true => "OK".to_owned(),
                false => network.load.errors.join("; "),
            };
            put("lastCNILoadStatus", json!(load));
            for (handler, network) in self.own_networks() {
                let load = network.load_report().errors;
                let load = if load.is_empty() { "OK".to_owned() } else { load.join("; ") };
                put(&format!("lastCNILoadStatus.{handler}"), json!(load));
            }
            let running = self.operations.list().into_iter().map(|one| {
                json!({
                    "operation": one.key,
                    "seconds": one.took.as_secs_f64(),
                    "stage": one.stage.0,
                    "stageSeconds": one.stage.1.as_secs_f64(),
                })
            });
            put("operations", running.collect());
            put("imagePulls", json!(self.images.pulls_under_way()));
            put("unfinished", json!(self.unfinished()));
            let stuck = self.reach.stuck().into_iter();
            put("stuckPaths", stuck.map(|(path, since)| json!({ "path": path, "seconds": since.as_secs() })).collect());
        }
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            info: info.into_iter().collect(),
            runtime_handlers: self.runtime_handlers(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: true,
                mount_options: true,
            }),
        })
    }
}

fn condition(kind: &str, status: bool, reason: &str, message: &str) -> RuntimeCondition {
    RuntimeCondition { r#type: kind.to_owned(), status, reason: reason.to_owned(), message: message.to_owned() }
}
