//! Where log lines go, in which form, and which of them.

use anyhow::bail;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::{Traces, config::Debug, traces::WithTrace};

/// The crates whose lines an operator turns up; libraries speak up from "warn".
const OWN: [&str; 24] = [
    "cgroup",
    "client",
    "content",
    "contract",
    "cri_cdi",
    "cri_logs",
    "cri_network",
    "cri_nri",
    "cri_server",
    "cri_streaming",
    "daemon",
    "database",
    "diff",
    "event",
    "metadata",
    "monitor",
    "mount",
    "otlp",
    "plugin",
    "registry",
    "runtime",
    "service",
    "snapshot",
    "transfer",
];

/// Which lines are logged, for who changes that while the daemon runs.
pub(crate) struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// Logs what the configuration says from now on; [`check`] it before.
    pub(crate) fn set(&self, config: &Debug) {
        let changed = filter(config).and_then(|filter| Ok(self.0.reload(filter)?));
        if let Err(error) = changed {
            tracing::error!(error = format!("{error:#}"), "changing the log level");
        }
    }
}

/// Refuses a level or a form that is none.
pub(crate) fn check(config: &Debug) -> anyhow::Result<()> {
    filter(config)?;
    match config.format.as_str() {
        "" | "text" | "json" => Ok(()),
        other => bail!("debug.format: {other:?} is not text or json"),
    }
}

/// Starts logging to standard error.
pub(crate) fn start(config: &Debug, traces: Option<Traces>) -> anyhow::Result<Level> {
    check(config)?;
    let (filter, level) = reload::Layer::new(filter(config)?);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let current = traces.filter(|_| config.log_trace_id).map(|traces| traces.current);
    let lines = match (config.format.as_str(), current) {
        ("json", None) => lines.json().boxed(),
        ("json", Some(current)) => lines.json().map_event_format(|inner| WithTrace { inner, current }).boxed(),
        (_, None) => lines.with_ansi(false).boxed(),
        (_, Some(current)) => lines.with_ansi(false).map_event_format(|inner| WithTrace { inner, current }).boxed(),
    };
    let layers = traces.map(|traces| (traces.layer)()).into_iter().chain([lines.with_filter(filter).boxed()]);
    tracing_subscriber::registry().with(layers.collect::<Vec<_>>()).init();
    Ok(Level(level))
}

fn filter(config: &Debug) -> anyhow::Result<EnvFilter> {
    let level = match config.level.as_str() {
        "" => "info",
        level @ ("trace" | "debug" | "info" | "warn" | "error") => level,
        "warning" => "warn",
        "fatal" | "panic" => "error",
        other => bail!("debug.level: {other:?} is not trace, debug, info, warn or error"),
    };
    let own = OWN.iter().map(|name| format!(",kevel_{name}={level}")).collect::<String>();
    Ok(EnvFilter::new(format!("warn,kevel_ttrpc={level}{own}")))
}
