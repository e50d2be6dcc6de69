//! What is told of a shim that is stuck: a count for Prometheus, and an event, which says how far it went with it.

use kevel_contract::Scope;
use kevel_model::Any;
use serde_json::json;

use super::ShimManager;
use crate::Shim;

/// The topic of the events.
const TOPIC: &str = "/shims/stuck";
/// Their type: a JSON document with `id`, `pid` and `stage`, as containerd's types are that protobuf does not know.
const TYPE: &str = "types.kevel.io/events/ShimStuck";

/// How far it went.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// It does not answer; callers are refused at once until it does.
    Silent,
    /// What is in the container's cgroup was killed without it.
    Forced,
    /// The shim itself was killed.
    Killed,
}

impl Stage {
    pub(crate) const ALL: [Self; 3] = [Self::Silent, Self::Forced, Self::Killed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Forced => "forced",
            Self::Killed => "killed",
        }
    }
}

impl ShimManager {
    /// Counts and tells it. Who listens holds up nobody for long: the exchange never waits for a subscriber.
    pub(super) async fn stuck(&self, shim: &Shim, stage: Stage) {
        if let Some(counts) = self.inner.stuck.get() {
            counts.with_label_values(&[stage.name()]).inc();
        }
        let document = json!({ "id": shim.id, "pid": shim.pid(), "stage": stage.name() });
        let event = Any::new(TYPE, document.to_string());
        if let Err(error) = self.inner.events.publish(&Scope::new(shim.namespace.clone()), TOPIC, event).await {
            tracing::warn!(id = shim.id, error = error.chain(), "that a shim is stuck was not published");
        }
    }
}
