//! The kinds of plugins in a shim, and the plugins that every shim has.

use kevel_plugin::{InitContext, InitError, Kind, Plugin, Registration};

use crate::{Facts, Publisher, Reaper, Services, Shutdown};

/// Who ends the shim.
pub enum Shutdowns {}

impl Kind for Shutdowns {
    const TYPE: &'static str = "io.containerd.internal.v1";
    type Handle = Shutdown;
}

/// Who starts processes and learns how they end.
pub enum Reapers {}

impl Kind for Reapers {
    const TYPE: &'static str = "io.containerd.internal.v1";
    type Handle = Reaper;
}

/// Who brings events to the daemon.
pub enum Publishers {}

impl Kind for Publishers {
    const TYPE: &'static str = "io.containerd.event.v1";
    type Handle = Publisher;
}

/// What is served on the shim's socket.
pub enum TtrpcServices {}

impl Kind for TtrpcServices {
    const TYPE: &'static str = "io.containerd.ttrpc.v1";
    type Handle = Services;
}

const NAMESPACE: &str = "io.containerd.plugin.shim.namespace";
const ID: &str = "io.containerd.plugin.shim.id";
const EVENTS: &str = "io.containerd.plugin.ttrpc.address";
const GRPC: &str = "io.containerd.plugin.grpc.address";

/// The properties that every plugin may read.
pub(crate) fn properties(facts: &Facts) -> std::collections::BTreeMap<String, String> {
    let of = |name: &str, value: String| (name.to_owned(), value);
    [
        of(NAMESPACE, facts.namespace.clone()),
        of(ID, facts.id.clone()),
        of(EVENTS, facts.events_address()),
        of(GRPC, facts.address.clone()),
    ]
    .into()
}

/// For whom the shim runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The namespace.
    pub namespace: String,
    /// The id of the container or sandbox that it was started for; others may have joined.
    pub id: String,
}

impl Identity {
    /// Reads it off a plugin's context.
    ///
    /// # Errors
    /// When the plugin runs in no shim.
    pub fn of(cx: &InitContext) -> Result<Self, InitError> {
        let property =
            |name: &str| cx.property(name).map(str::to_owned).ok_or_else(|| InitError::failed(format!("no {name}")));
        Ok(Self { namespace: property(NAMESPACE)?, id: property(ID)? })
    }
}

/// Sends events to the daemon's ttrpc socket.
pub struct PublisherPlugin;

impl Plugin for PublisherPlugin {
    type Kind = Publishers;
    const ID: &'static str = "publisher";
    type Config = ();
    type Deps = ();

    async fn init(cx: InitContext, (): (), (): ()) -> Result<Publisher, InitError> {
        let address = cx.property(EVENTS).unwrap_or_default();
        if address.is_empty() {
            return Err(InitError::failed("the daemon named no address for events"));
        }
        let publisher = Publisher::start(address.into(), Identity::of(&cx)?.namespace);
        let closing = publisher.clone();
        cx.on_close(move || async move { closing.close().await });
        Ok(publisher)
    }
}

/// Makes the shim the parent of its containers' processes.
pub struct ReaperPlugin;

impl Plugin for ReaperPlugin {
    type Kind = Reapers;
    const ID: &'static str = "reaper";
    type Config = ();
    type Deps = ();

    async fn init(_: InitContext, (): (), (): ()) -> Result<Reaper, InitError> {
        Reaper::start().map_err(InitError::failed)
    }
}

/// The end of the shim as a plugin.
pub(crate) fn shutdown(handle: Shutdown) -> Registration {
    Registration::remote::<Shutdowns>("shutdown", move |_| Ok(handle))
}
