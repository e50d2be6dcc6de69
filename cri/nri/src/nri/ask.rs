//! Asking one plugin after the other.

use bytes::Bytes;
use kevel_model::{Error, Result};
use prost::Message;

use super::{Nri, Subject};
use crate::{
    api::{Event, RunPodSandboxRequest, StartContainerRequest, StateChangeEvent},
    event,
    plugin::{Answer, Peer, Question},
    stage::Stage,
};

impl Question {
    /// An event whose answer says nothing.
    pub(super) fn notice(event: Event, subject: &Subject) -> Self {
        let Subject { pod, container } = subject.clone();
        // The requests of all such events are alike on the wire: the pod is field 1, the container field 2.
        let payload = match &container {
            None => RunPodSandboxRequest { pod: Some(pod.clone()) }.encode_to_vec(),
            Some(_) => StartContainerRequest { pod: Some(pod.clone()), container: container.clone() }.encode_to_vec(),
        };
        let change = StateChangeEvent { event: event as i32, pod: Some(pod), container };
        Self { event, payload: payload.into(), state_change: Some(change) }
    }

    /// A request whose answer matters.
    pub(super) fn request(event: Event, request: &impl Message) -> Self {
        Self { event, payload: request.encode_to_vec().into(), state_change: None }
    }
}

/// What a plugin answered.
pub(super) fn decode<M: Message + Default>(plugin: &Peer, event: Event, answer: Bytes) -> Result<M> {
    let what = || format!("answer of NRI plugin {} to {}", plugin.full_name, event::method(event));
    M::decode(answer).map_err(|error| Error::internal(what()).with_source(error))
}

/// What has happened cannot be refused; that a plugin tried is worth a line.
pub(super) fn logged(id: &str, event: Event, told: Result<()>) {
    if let Err(error) = told {
        let event = event::method(event);
        tracing::warn!(id, event, error = error.chain(), "an NRI plugin refused what has happened");
    }
}

/// Whether a plugin's refusal ends the request: what has happened cannot be refused.
fn may_refuse(event: Event) -> bool {
    matches!(event, Event::RunPodSandbox | Event::StartContainer | Event::UpdatePodSandbox)
}

impl Nri {
    /// Tells plugins of an event of the object `id`, unless they know. `describe` is awaited only when somebody listens;
    /// `None` tells nobody.
    ///
    /// # Errors
    /// The first refusal. When the event is one that cannot be refused, the other plugins are told first.
    pub(super) async fn notify(
        &self,
        event: Event,
        id: &str,
        describe: impl Future<Output = Option<Subject>> + Send,
    ) -> Result<()> {
        if self.config.disable {
            return Ok(());
        }
        let mut stage = self.stages.alone(id).await;
        let Some(next) = Stage::after(*stage, event) else {
            self.stages.forget(id, stage);
            return Ok(());
        };
        let plugins = self.plugins();
        let listens = plugins.iter().any(|plugin| plugin.events.has(event));
        let subject = if listens { describe.await } else { None };
        let mut refused = Ok(());
        if let Some(subject) = subject {
            let question = Question::notice(event, &subject);
            for plugin in plugins.iter() {
                let told = plugin.ask(&question).await.map(|_: Answer| ());
                if told.is_err() && may_refuse(event) {
                    refused = told;
                    break;
                }
                refused = refused.and(told);
            }
        }
        *stage = next;
        self.stages.forget(id, stage);
        refused
    }
}
