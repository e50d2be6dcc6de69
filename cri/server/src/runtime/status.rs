//! Status.

use std::{collections::BTreeMap, sync::Arc};

use kevel_contract::introspection::Health;
use kevel_cri_network::NetworkStatus;
use kevel_model::{Filters, Result};
use kevel_plugin::{PluginStatus, Report};
use kevel_proto::runtime::v1::{RuntimeCondition, RuntimeFeatures, RuntimeStatus, StatusResponse};
use serde_json::{Value, json};

use crate::{
    config::{Handler, RuntimeConfig},
    operation::Progress,
    server::Server,
};

impl Server {
    /// Whether pods can run and have a network, and what handlers can do.
    pub(crate) async fn runtime_status(&self, verbose: bool) -> Result<StatusResponse> {
        let network = self.default_network()?.status().await;
        let reason = if network.ready { "" } else { "NetworkPluginNotReady" };
        let conditions = vec![
            condition("RuntimeReady", true, "", ""),
            condition("NetworkReady", network.ready, reason, &network.reason),
        ];
        let info = if verbose { self.explain(&network).await? } else { BTreeMap::new() };
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

impl Server {
    /// What explains the node: each entry is a JSON document.
    async fn explain(&self, network: &NetworkStatus) -> Result<BTreeMap<String, String>> {
        let mut info = BTreeMap::new();
        let mut put = |key: &str, value: Value| drop(info.insert(key.to_owned(), value.to_string()));
        let containerd = self.settings.handlers().config.clone();
        let config = RuntimeConfig { containerd, ..self.settings.config.clone() };
        put("config", serde_json::to_value(&config).unwrap_or_default());
        put("imagesConfig", serde_json::to_value(&self.images.config).unwrap_or_default());
        put("cniconfig", self.default_network()?.describe());
        put("lastCNILoadStatus", load(&network.load.errors));
        for (handler, network) in self.own_networks() {
            put(&format!("lastCNILoadStatus.{handler}"), load(&network.load_report().errors));
        }
        put("runtimeHandlers", self.explain_handlers());
        put("operations", self.operations.list().iter().map(explain_operation).collect());
        put("imagePulls", json!(self.images.pulls_under_way()));
        put("unfinished", json!(self.unfinished()));
        let stuck = self.reach.stuck().into_iter();
        put("stuckPaths", stuck.map(|(path, since)| json!({ "path": path, "seconds": since.as_secs() })).collect());
        put("containerEvents", json!({ "heard": self.index.hub.is_heard(), "leftOut": self.index.hub.left_out() }));
        // What cannot be told is no reason to tell nothing.
        if let Ok(plugins) = self.introspection.plugins(&Filters::default()).await {
            put("plugins", plugins.iter().map(|report| explain_plugin(report)).collect());
        }
        if let Ok(shims) = self.introspection.health().await {
            put("shims", explain_shims(&shims));
        }
        Ok(info)
    }

    fn explain_handlers(&self) -> Value {
        let describe = |(name, handler): (&String, &Arc<Handler>)| {
            let features = self.features.of(name).unwrap_or_default();
            let value = json!({
                "runtimeType": handler.runtime.name,
                "runtimePath": handler.config.runtime_path,
                "sandboxer": handler.config.sandboxer,
                "snapshotter": self.snapshotter_of(handler),
                "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
                "userNamespaces": features.user_namespaces,
            });
            (name.clone(), value)
        };
        Value::Object(self.settings.handlers().iter().map(describe).collect())
    }
}

fn load(errors: &[String]) -> Value {
    if errors.is_empty() { json!("OK") } else { json!(errors.join("; ")) }
}

fn explain_operation(one: &Progress) -> Value {
    json!({
        "operation": one.key,
        "kind": one.kind,
        "seconds": one.took.as_secs_f64(),
        "stage": one.stage.0,
        "stageSeconds": one.stage.1.as_secs_f64(),
    })
}

fn explain_plugin(report: &Report) -> Value {
    let (status, why) = match &report.status {
        PluginStatus::Ok => ("ok", String::new()),
        PluginStatus::Skip(why) => ("skip", why.clone()),
        PluginStatus::Error(why) => ("error", why.clone()),
    };
    json!({ "uri": report.uri(), "status": status, "why": why })
}

/// How many are well, and which are not.
fn explain_shims(shims: &[Health]) -> Value {
    let (well, ill): (Vec<_>, Vec<_>) = shims.iter().partition(|shim| shim.state == "ok");
    let describe = |one: &&Health| json!({ "subject": one.subject, "state": one.state, "detail": one.detail });
    json!({ "ok": well.len(), "others": ill.iter().map(describe).collect::<Vec<_>>() })
}

fn condition(kind: &str, status: bool, reason: &str, message: &str) -> RuntimeCondition {
    RuntimeCondition { r#type: kind.to_owned(), status, reason: reason.to_owned(), message: message.to_owned() }
}
