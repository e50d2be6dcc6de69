//! What a daemon says of itself.

use kevel_contract::introspection::RuntimeInfo;
use kevel_model::Platform;
use kevel_plugin::{Declared, PluginStatus, Report};
use kevel_proto::{
    containerd::{services::introspection::v1 as proto, types},
    google::rpc,
};

use super::{any_read, any_wire, types as convert};

/// How the reason of a plugin that chose not to run begins; clients tell it from a failure by that.
const SKIP: &str = "skip plugin";

/// A plugin for the wire.
pub fn wire(report: &Report) -> proto::Plugin {
    let init_err = match &report.status {
        PluginStatus::Ok => None,
        PluginStatus::Skip(why) | PluginStatus::Error(why) => {
            let code = tonic::Code::Unknown.into();
            Some(rpc::Status { code, message: why.clone(), details: Vec::new() })
        }
    };
    let platforms = report.declared.platforms.iter().filter_map(|text| text.parse::<Platform>().ok());
    proto::Plugin {
        r#type: report.type_name.clone(),
        id: report.id.clone(),
        requires: report.requires.clone(),
        platforms: platforms.map(convert::platform_wire).collect(),
        exports: report.declared.exports.clone(),
        capabilities: report.declared.capabilities.clone(),
        init_err,
    }
}

/// A plugin from the wire, which does not carry unknown configuration keys.
pub fn read(plugin: proto::Plugin) -> Report {
    let platforms = plugin.platforms.into_iter().map(|platform| convert::platform_read(platform).to_string());
    Report {
        type_name: plugin.r#type,
        id: plugin.id,
        requires: plugin.requires,
        declared: Declared {
            platforms: platforms.collect(),
            exports: plugin.exports,
            capabilities: plugin.capabilities,
        },
        status: match plugin.init_err {
            None => PluginStatus::Ok,
            Some(status) if status.message.starts_with(SKIP) => PluginStatus::Skip(status.message),
            Some(status) => PluginStatus::Error(status.message),
        },
        unknown_keys: Vec::new(),
    }
}

/// What a shim says of its runtime, for the wire.
pub fn runtime_wire(info: RuntimeInfo) -> types::RuntimeInfo {
    types::RuntimeInfo {
        name: info.name,
        version: Some(types::RuntimeVersion { version: info.version, revision: info.revision }),
        options: info.options.map(any_wire),
        features: info.features.map(any_wire),
        annotations: info.annotations,
    }
}

/// What a shim says of its runtime, from the wire.
pub fn runtime_read(info: types::RuntimeInfo) -> RuntimeInfo {
    let version = info.version.unwrap_or_default();
    RuntimeInfo {
        name: info.name,
        version: version.version,
        revision: version.revision,
        options: info.options.map(any_read),
        features: info.features.map(any_read),
        annotations: info.annotations,
    }
}
