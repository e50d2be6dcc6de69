//! From a connection to a plugin that is asked: registration, configuration, synchronization.

use std::sync::Arc;

use kevel_model::{Error, Result};
use kevel_ttrpc::{CallOptions, Client, Server};
use tokio::{net::UnixStream, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{ConfigureRequest, ConfigureResponse, plugin_ttrpc, runtime_ttrpc},
    event::Mask,
    mux::Mux,
    nri::Nri,
    plugin::{Peer, Phase},
    service::{Runtime, Shared},
    synchronize::synchronize,
};

/// What of NRI is spoken here; plugins adapt to it.
const VERSION: &str = "v0.12.0";

/// How a plugin came to be connected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// Index and name of one that the daemon started.
    pub(crate) given: Option<(String, String)>,
    /// Its configuration file.
    pub(crate) config: String,
}

/// Makes a plugin of a connection. It is among those that are asked when this returns, and until its connection ends.
///
/// # Errors
/// When it does not register, cannot be configured or cannot be synchronized in time; the connection ends then.
pub(crate) async fn register(nri: &Arc<Nri>, stream: UnixStream, origin: Origin) -> Result<Arc<Peer>> {
    let mux = Mux::over(stream);
    let (registered, registration) = oneshot::channel();
    let runtime = Arc::new(Runtime::new(Arc::downgrade(nri), origin.given.clone(), registered));
    let hang_up = CancellationToken::new();
    let ending = hang_up.clone().drop_guard();
    let mut server = Server::new().max_calls(16).drain(std::time::Duration::ZERO);
    let service = Arc::new(Shared(runtime.clone()));
    server
        .register(runtime_ttrpc::SERVICE, service)
        .map_err(|error| Error::internal("serving NRI").with_source(error))?;
    let serving = hang_up.clone();
    tokio::spawn(async move { server.serve_connection(mux.runtime, None, serving).await });
    let client = Client::new(mux.plugin);
    let name = tokio::select! {
        name = registration => name.map_err(|_| Error::unavailable("an NRI plugin hung up before it registered"))?,
        () = client.closed() => return Err(Error::unavailable("an NRI plugin hung up before it registered")),
        () = tokio::time::sleep(nri.config.plugin_registration_timeout) => {
            return Err(Error::deadline_exceeded("an NRI plugin did not register in time"));
        }
    };
    let full_name = format!("{}-{}", name.0, name.1);
    let configured = configure(nri, &client, origin.config).await;
    let configured = configured.map_err(|error| error.context(format!("configuring NRI plugin {full_name}")))?;
    let plugin = Peer::new(name, configured, client, hang_up, nri.config.plugin_request_timeout);
    let plugin = Arc::new(plugin);
    join(nri, &plugin, &runtime).await?;
    ending.disarm();
    Ok(plugin)
}

async fn configure(nri: &Nri, client: &Client, config: String) -> Result<(Mask, crate::api::FailurePolicy)> {
    let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let request = ConfigureRequest {
        config,
        runtime_name: "kevel".to_owned(),
        runtime_version: format!("v{}", env!("CARGO_PKG_VERSION")),
        registration_timeout: millis(nri.config.plugin_registration_timeout),
        request_timeout: millis(nri.config.plugin_request_timeout),
        nri_version: VERSION.to_owned(),
    };
    let options = CallOptions::timeout(nri.config.plugin_request_timeout);
    let answer = client.call(plugin_ttrpc::SERVICE, "Configure", &request, options).await;
    let answer: ConfigureResponse = answer.map_err(|error| Error::unavailable(error.to_string()))?;
    let unknown = |bits| Error::invalid_argument(format!("it subscribes to events that do not exist: {bits:#x}"));
    let events = Mask::subscribed(answer.events).map_err(unknown)?;
    Ok((events, answer.failure_policy.unwrap_or_default()))
}

/// From here on the plugin is told of every event; those that come while it is told of what is there wait for it.
async fn join(nri: &Arc<Nri>, plugin: &Arc<Peer>, runtime: &Runtime) -> Result<()> {
    let (pods, containers) = nri.admit(plugin).await?;
    runtime.admit(&plugin.full_name);
    let watched = (nri.clone(), plugin.clone());
    tokio::spawn(async move {
        let (nri, plugin) = watched;
        plugin.client.closed().await;
        plugin.close();
        nri.dismiss(&plugin);
    });
    let (told, of) = (pods.len(), containers.len());
    let timeout = nri.config.plugin_registration_timeout.max(nri.config.plugin_request_timeout);
    match synchronize(plugin, pods, containers, timeout).await {
        Ok(updates) => {
            // Ready first: what the plugin wants updated may be waiting for the plugin itself.
            plugin.phase.send_if_modified(|phase| {
                let synchronizing = *phase == Phase::Synchronizing;
                if synchronizing {
                    *phase = Phase::Ready;
                }
                synchronizing
            });
            tracing::info!(plugin = plugin.full_name, pods = told, containers = of, "an NRI plugin is ready");
            nri.apply(updates, Vec::new()).await;
            Ok(())
        }
        Err(error) => {
            plugin.close();
            nri.dismiss(plugin);
            Err(error)
        }
    }
}
