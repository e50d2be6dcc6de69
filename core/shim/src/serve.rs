//! Serving: the plugins, the inherited socket, signals, and the end. One thread does everything, so that nothing that this
//! process starts is started from a thread that could end before it.

use std::{io, os::unix::net::UnixListener, path::Path, time::Duration};

use kevel_plugin::{Graph, PluginStatus, Registry, Settings};
use kevel_ttrpc::Server;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Facts, PublisherPlugin, ReaperPlugin, Shim, Shutdown, TtrpcServices, inherit, log,
    plugin::{properties, shutdown},
    socket::Own,
};

/// The descriptor of the listening socket.
pub(crate) const LISTENER: i32 = 3;
/// How long calls that still run may take when the shim ends. Most are waits for an end that has come.
const DRAIN: Duration = Duration::from_millis(500);
/// How long an idle thread for blocking work stays: its stack is memory.
const IDLE: Duration = Duration::from_millis(100);
/// How many threads block at the same time; mounts do.
const BLOCKING: usize = 8;

/// Serves until a service or a signal ends it.
pub(crate) fn serve<S: Shim>(shim: &S, facts: &Facts, bundle: &Path) -> Result<(), Error> {
    let listener = inherit::listener(LISTENER).map_err(|error| Error::system("taking the inherited socket", error))?;
    log::start(bundle, facts.debug).map_err(|error| Error::file("opening", bundle.join("log"), error))?;
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(IDLE)
        .max_blocking_threads(BLOCKING)
        .build()
        .map_err(|error| Error::system("starting the runtime", error))
        .and_then(|runtime| {
            let result = runtime.block_on(run(shim, facts, bundle, listener));
            runtime.shutdown_background(); // a mount that hangs is the kernel's
            result
        });
    if let Err(error) = &result {
        tracing::error!(error = error.chain(), "the shim failed");
    }
    result
}

async fn run<S: Shim>(shim: &S, facts: &Facts, bundle: &Path, listener: UnixListener) -> Result<(), Error> {
    let stop = Shutdown::default();
    follow_signals(stop.clone()).map_err(|error| Error::system("following signals", error))?;
    let own = Own::of(&listener);
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
    let listener = listener.map_err(|error| Error::system("listening", error))?;
    let mut registry = Registry::default();
    registry.push(shutdown(stop.clone())).add::<ReaperPlugin>().add::<PublisherPlugin>();
    shim.plugins(&mut registry);
    let settings = Settings { state: bundle.to_owned(), properties: properties(facts), ..Settings::default() };
    let graph = registry.start(settings).await?;
    let server = match server(&graph) {
        Ok(server) => server,
        Err(error) => {
            graph.stop().await;
            return Err(error);
        }
    };
    tracing::info!(id = facts.id, namespace = facts.namespace, "the shim serves");
    let closing = CancellationToken::new();
    let serving = server.serve(listener, closing.clone());
    let leaving = async {
        stop.asked().await;
        // Before anybody sees a connection end: who comes now makes a shim of his own.
        own.iter().for_each(Own::remove);
        closing.cancel();
    };
    tokio::join!(serving, leaving);
    graph.stop().await;
    Ok(())
}

/// Puts together what the plugins offer.
fn server(graph: &Graph) -> Result<Server, Error> {
    for report in graph.reports() {
        if let PluginStatus::Error(why) = &report.status {
            return Err(Error::Plugin(format!("plugin {}: {why}", report.uri())));
        }
    }
    let mut server = Server::new().require_same_uid().drain(DRAIN);
    let mut any = false;
    for (id, services) in graph.all::<TtrpcServices>() {
        for (name, service) in services {
            let registered = server.register(name, service);
            registered.map_err(|error| Error::Plugin(format!("plugin {TYPE}.{id}: {error}")))?;
            any = true;
        }
    }
    if !any {
        return Err(Error::Plugin(format!("no plugin of type {TYPE} serves anything")));
    }
    Ok(server)
}

const TYPE: &str = <TtrpcServices as kevel_plugin::Kind>::TYPE;

/// SIGTERM and SIGINT end the shim, not its containers. A reader that is gone is an error of a write, never a signal.
fn follow_signals(stop: Shutdown) -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut pipe = signal(SignalKind::pipe())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = pipe.recv() => {}
            }
        }
        tracing::info!("a signal ends the shim");
        stop.now();
    });
    Ok(())
}
