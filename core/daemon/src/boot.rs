//! From command line to running daemon, and back down.

use std::{collections::BTreeMap, env, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use kevel_plugin::{Graph, PluginStatus, Registry, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Traces, builtins, cgroup,
    cli::Cli,
    config::{self, Config, DEFAULT_CONFIG_PATH, Loaded},
    logging, memory, oom,
    reload::Reloader,
    server::{self, Servers},
    timeouts, traces,
};

/// How long listeners may take to finish the calls that run when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// The plugin whose table is the top-level table `stream_processors`.
const PROCESSORS_URI: &str = "io.containerd.internal.v1.stream-processors";

/// The configuration of this command line: the file with its imports, flags over it.
pub(crate) fn configuration(cli: &Cli) -> anyhow::Result<Loaded> {
    let optional = cli.config == Path::new(DEFAULT_CONFIG_PATH);
    let mut loaded = config::load(&cli.config, optional)?;
    let config = &mut loaded.config;
    if let Some(root) = &cli.root {
        config.root.clone_from(root);
    }
    if let Some(state) = &cli.state {
        config.state.clone_from(state);
    }
    if let Some(level) = &cli.log_level {
        config.debug.level.clone_from(level);
    }
    if let Some(address) = &cli.address {
        set(config, server::GRPC_URI, "address", address);
        set(config, server::TTRPC_URI, "address", &format!("{address}.ttrpc"));
    }
    check(config)?;
    Ok(loaded)
}

fn set(config: &mut Config, uri: &str, key: &str, value: &str) {
    let table = config.plugins.entry(uri.to_owned()).or_default();
    table.insert(key.to_owned(), toml::Value::String(value.to_owned()));
}

fn check(config: &Config) -> anyhow::Result<()> {
    for (key, path) in [("root", &config.root), ("state", &config.state)] {
        if !path.is_absolute() {
            bail!("{key}: {} is not an absolute path", path.display());
        }
    }
    if config.root == config.state {
        bail!("root and state are the same directory: {}", config.root.display());
    }
    timeouts::check(&config.timeouts)?;
    cgroup::check(&config.cgroup.path)
}

/// The address of the gRPC socket: the configured one, or `kevel.sock` in the state directory.
pub(crate) fn grpc_address(config: &Config) -> String {
    address(config, server::GRPC_URI).unwrap_or_else(|| config.state.join("kevel.sock").display().to_string())
}

fn ttrpc_address(config: &Config) -> String {
    address(config, server::TTRPC_URI).unwrap_or_else(|| format!("{}.ttrpc", grpc_address(config)))
}

fn address(config: &Config, uri: &str) -> Option<String> {
    let address = config.plugins.get(uri)?.get("address")?.as_str()?;
    (!address.is_empty()).then(|| address.to_owned())
}

/// Runs the daemon until it is told to stop.
pub(crate) fn run(cli: &Cli, traces: Option<Traces>) -> anyhow::Result<()> {
    let loaded = configuration(cli)?;
    let level = logging::start(&loaded.config.debug, traces)?;
    for file in &loaded.files {
        tracing::info!(file = %file.display(), "configuration read");
    }
    warn(&loaded, traces);
    memory::configure();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("keveld")
        .worker_threads(std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)))
        .build()?;
    runtime.block_on(serve(Reloader { cli, started: loaded.config, level, traces }))
}

/// Says what of a configuration is not acted on.
pub(crate) fn warn(loaded: &Loaded, traces: Option<Traces>) {
    if traces.is_none() {
        traces::warn(&loaded.config);
    }
    for warning in &loaded.warnings {
        tracing::warn!(warning, "configuration");
    }
    for key in &loaded.unknown_keys {
        tracing::warn!(key, "unknown configuration key");
    }
    if !loaded.config.temp.is_empty() {
        tracing::warn!("temp is not acted on: what is temporary is below the state directory");
    }
    for name in timeouts::strangers(&loaded.config.timeouts) {
        tracing::warn!(name, "unknown key of the table timeouts");
    }
}

fn directories(config: &Config) -> anyhow::Result<()> {
    for dir in [&config.root, &config.state] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir)
            .with_context(|| format!("making {}", dir.display()))?;
    }
    Ok(())
}

pub(crate) fn settings(config: &Config) -> Settings {
    let text = |path: &Path| path.display().to_string();
    let mut properties = BTreeMap::from([
        ("io.containerd.plugin.root".to_owned(), text(&config.root)),
        ("io.containerd.plugin.state".to_owned(), text(&config.state)),
        ("io.containerd.plugin.grpc.address".to_owned(), grpc_address(config)),
        ("io.containerd.plugin.ttrpc.address".to_owned(), ttrpc_address(config)),
    ]);
    properties.extend(timeouts::properties(&config.timeouts));
    if let Ok(binary) = env::current_exe() {
        properties.insert("io.kevel.plugin.binary".to_owned(), text(&binary));
    }
    #[expect(clippy::disallowed_methods, reason = "the daemon is the one place that reads the environment")]
    if let Ok(path) = env::var("PATH") {
        properties.insert("io.kevel.plugin.path".to_owned(), path);
    }
    properties.extend(traces::properties());
    let mut plugins = config.plugins.clone();
    // The listeners' addresses depend on the state directory when nobody names them.
    for (uri, address) in [(server::GRPC_URI, grpc_address(config)), (server::TTRPC_URI, ttrpc_address(config))] {
        plugins.entry(uri.to_owned()).or_default().insert("address".to_owned(), toml::Value::String(address));
    }
    if !config.stream_processors.is_empty() {
        plugins.entry(PROCESSORS_URI.to_owned()).or_default().extend(config.stream_processors.clone());
    }
    Settings {
        root: config.root.clone(),
        state: config.state.clone(),
        properties,
        plugins,
        disabled: config.disabled_plugins.clone(),
        required: config.required_plugins.clone(),
    }
}

/// Every plugin: the builtin ones and the configuration's proxies.
pub(crate) fn registry(config: &Config, traces: Option<Traces>) -> anyhow::Result<Registry> {
    let mut registry = builtins::registry(traces);
    for registration in kevel_client::proxy::registrations(&config.proxy_plugins)? {
        registry.push(registration);
    }
    Ok(registry)
}

async fn serve(reloader: Reloader<'_>) -> anyhow::Result<()> {
    let config = &reloader.started;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), root = %config.root.display(), "starting keveld");
    // A wrong value refuses to start before anything is touched; unknown keys are logged as each plugin starts.
    let checked = registry(config, reloader.traces)?.check(settings(config))?;
    for uri in checked.strangers() {
        tracing::warn!(plugin = uri, "configuration of a plugin that is not here");
    }
    directories(config)?;
    cgroup::join(&config.cgroup.path)?;
    oom::adjust(config.oom_score);
    tokio::spawn(memory::give_back());
    let mut signals = Signals::new()?;
    let mut graph = checked.start().await?;
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let started = start_servers(&graph, &stop, &tracker).await;
    if let Err(error) = started {
        stop.cancel();
        graph.stop().await;
        return Err(error);
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("keveld is ready");
    while let Signal::Reload = signals.next().await {
        tokio::task::block_in_place(|| reloader.reload(&mut graph));
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping");
    stop.cancel();
    tracker.close();
    if tokio::time::timeout(DRAIN, tracker.wait()).await.is_err() {
        tracing::warn!("listeners did not finish within {DRAIN:?}");
    }
    graph.stop().await;
    Ok(())
}

async fn start_servers(graph: &Graph, stop: &CancellationToken, tracker: &TaskTracker) -> anyhow::Result<()> {
    // A listener that can't be had (an address in use, say) is fatal: a daemon that nobody reaches helps nobody.
    let failed = graph.reports().iter().find_map(|report| match &report.status {
        PluginStatus::Error(why) if report.type_name == server::TYPE => Some((report.uri(), why.clone())),
        _ => None,
    });
    if let Some((uri, why)) = failed {
        bail!("{uri} did not start: {why}");
    }
    for (id, server) in graph.all::<Servers>() {
        let serving = server.listen(stop.clone()).await.with_context(|| format!("starting the {id} listener"))?;
        tracker.spawn(serving);
    }
    Ok(())
}

struct Signals {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// What the daemon is told.
enum Signal {
    Stop,
    Reload,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "version = 3\nroot = \"/r\"\nstate = \"/s\"\n[grpc]\naddress = \"/a\"").unwrap();
        let file = file.to_str().unwrap();
        let plain = configuration(&Cli::parse_from(["keveld", "--config", file])).unwrap().config;
        assert_eq!((grpc_address(&plain), ttrpc_address(&plain)), ("/a".to_owned(), "/a.ttrpc".to_owned()));
        let args = ["keveld", "-c", file, "--root", "/r2", "-a", "/b", "-l", "debug"];
        let flagged = configuration(&Cli::parse_from(args)).unwrap().config;
        assert_eq!(flagged.root, Path::new("/r2"));
        assert_eq!((grpc_address(&flagged), ttrpc_address(&flagged)), ("/b".to_owned(), "/b.ttrpc".to_owned()));
        assert_eq!(flagged.debug.level, "debug");
    }

    #[test]
    fn refuses_directories_that_can_not_be() {
        let check = |args: &[&str], want: &str| {
            let cli = Cli::parse_from([&["keveld"], args].concat());
            assert_eq!(configuration(&cli).unwrap_err().to_string(), want);
        };
        check(&["--root", "x"], "root: x is not an absolute path");
        check(&["--root", "/x", "--state", "/x"], "root and state are the same directory: /x");
    }
}
