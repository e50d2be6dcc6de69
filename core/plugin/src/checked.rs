//! A graph whose configuration was read and whose order is known, and its start.

use std::sync::{Arc, PoisonError};

use crate::{
    Graph, GraphError, InitContext, InitError, PluginStatus, Report, Settings, registry::Ready, reload::Running,
};

/// Plugins that can be started: every table was read, every requirement has somebody to meet it. Nothing was touched
/// yet, so a daemon makes one before it touches the disk, and drops it when it only wanted to know.
pub struct Checked {
    pub(crate) plugins: Vec<Ready>,
    pub(crate) settings: Settings,
    pub(crate) strangers: Vec<String>,
}

impl Checked {
    /// URIs that have a table in the configuration and no plugin.
    pub fn strangers(&self) -> &[String] {
        &self.strangers
    }

    /// Starts every plugin, dependencies first. One that fails or skips does not stop the others, unless it is required.
    pub async fn start(self) -> Result<Graph, GraphError> {
        let settings = self.settings;
        let properties = Arc::new(settings.properties);
        let mut graph = Graph::default();
        for plugin in self.plugins {
            let uri = plugin.uri();
            let (root, state) = (settings.root.join(&uri), settings.state.join(&uri));
            let cx = InitContext::in_graph(uri.clone(), root, state, properties.clone(), graph.shared_reports());
            let told = cx.told.clone();
            let result = (plugin.init)(cx, &graph).await;
            let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
            let status = match &result {
                Ok(_) => PluginStatus::Ok,
                Err(InitError::Skip(why)) => PluginStatus::Skip(format!("skip plugin: {why}")),
                Err(error) => PluginStatus::Error(error.chain()),
            };
            log(&uri, &status, &plugin.unknown_keys);
            let report = Report {
                type_name: plugin.type_name.to_owned(),
                id: plugin.id,
                requires: plugin.requires.iter().map(|needs| needs.type_name.to_owned()).collect(),
                declared: told.declared,
                status,
                unknown_keys: plugin.unknown_keys,
            };
            graph.running.push(Running { uri, table: plugin.effective, reloader: told.reloader });
            graph.add(plugin.kind, report, result.ok(), told.closers);
        }
        check_required(&settings.required, graph).await
    }
}

fn log(uri: &str, status: &PluginStatus, unknown_keys: &[String]) {
    for key in unknown_keys {
        tracing::warn!(plugin = uri, key, "unknown configuration key");
    }
    match status {
        PluginStatus::Ok => tracing::info!(plugin = uri, "plugin started"),
        PluginStatus::Skip(why) => tracing::info!(plugin = uri, why, "plugin skipped"),
        PluginStatus::Error(why) => tracing::error!(plugin = uri, why, "plugin failed"),
    }
}

async fn check_required(required: &[String], graph: Graph) -> Result<Graph, GraphError> {
    for uri in required {
        let why = match graph.reports().iter().find(|report| report.uri() == *uri).map(|report| &report.status) {
            Some(PluginStatus::Ok) => continue,
            Some(PluginStatus::Skip(why) | PluginStatus::Error(why)) => why.clone(),
            None => "there is no such plugin".to_owned(),
        };
        graph.stop().await;
        return Err(GraphError::Required { uri: uri.clone(), why });
    }
    Ok(graph)
}
