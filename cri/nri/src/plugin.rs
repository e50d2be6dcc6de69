//! `io.containerd.nri.v1.nri`, and one connected plugin of NRI's: how it is asked, and what its failures mean.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use kevel_contract::metric::Metrics;
use kevel_model::{Code, Error, Result};
use kevel_plugin::{InitContext, InitError, Kind, One, deps};
use kevel_ttrpc::{CallOptions, Client};
use prost::Message;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    NriConfig,
    api::{Event, FailurePolicy, StateChangeEvent, plugin_ttrpc},
    event::{self, Mask},
    metrics,
    nri::Nri,
};

/// NRI: `io.containerd.nri.v1`.
pub enum NriPlugins {}

impl Kind for NriPlugins {
    const TYPE: &'static str = "io.containerd.nri.v1";
    type Handle = Arc<Nri>;
}

deps! {
    /// What NRI needs.
    pub struct NriDeps {
        /// Where its metrics go.
        metrics: One<Metrics>,
    }
}

/// The plugin of the daemon's graph.
pub struct NriPlugin;

impl kevel_plugin::Plugin for NriPlugin {
    type Kind = NriPlugins;
    const ID: &'static str = "nri";
    type Config = NriConfig;
    type Deps = NriDeps;

    async fn init(cx: InitContext, config: NriConfig, deps: NriDeps) -> Result<Arc<Nri>, InitError> {
        config.check().map_err(|message| InitError::Config { uri: cx.uri.clone(), message })?;
        metrics::install(&deps.metrics.0).map_err(InitError::failed)?;
        let nri = Nri::new(config);
        let stopping = nri.clone();
        cx.on_close(move || async move { stopping.stop().await });
        Ok(nri)
    }
}

/// Where a plugin is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It learns what is there; whoever needs it waits.
    Synchronizing,
    /// It is asked.
    Ready,
    /// It is gone.
    Closed,
}

/// A plugin that has registered.
pub(crate) struct Peer {
    /// Its index and name, as `10-logger`.
    pub(crate) full_name: String,
    pub(crate) index: String,
    pub(crate) name: String,
    pub(crate) events: Mask,
    pub(crate) policy: FailurePolicy,
    pub(crate) client: Client,
    pub(crate) phase: watch::Sender<Phase>,
    /// Cancelled when the connection is to end.
    pub(crate) hang_up: CancellationToken,
    /// How long a request may take.
    pub(crate) timeout: Duration,
    /// One request after the other, in the order in which they were made.
    turn: Mutex<()>,
    /// Events, as bits, for which it has no method.
    lacks: AtomicU32,
}

/// What a plugin is asked, encoded once for all plugins.
pub(crate) struct Question {
    pub(crate) event: Event,
    pub(crate) payload: Bytes,
    /// The same as an event of [`plugin_ttrpc::STATECHANGE`], for plugins that lack the method; `None` for requests
    /// whose answer matters.
    pub(crate) state_change: Option<StateChangeEvent>,
}

/// What came of a question.
pub(crate) enum Answer {
    /// It was answered.
    Given(Bytes),
    /// The plugin has not subscribed.
    Unasked,
    /// The plugin is gone, or was asked and failed: the request goes on without it.
    Lost,
}

impl Peer {
    pub(crate) fn new(
        (index, name): (String, String),
        (events, policy): (Mask, FailurePolicy),
        client: Client,
        hang_up: CancellationToken,
        timeout: Duration,
    ) -> Self {
        Self {
            full_name: format!("{index}-{name}"),
            index,
            name,
            events,
            policy,
            client,
            phase: watch::Sender::new(Phase::Synchronizing),
            hang_up,
            timeout,
            turn: Mutex::new(()),
            lacks: AtomicU32::new(0),
        }
    }

    /// Ends the connection. Whoever waits for the plugin goes on without it.
    pub(crate) fn close(&self) {
        self.phase.send_replace(Phase::Closed);
        self.client.close();
        self.hang_up.cancel();
    }

    /// Asks the plugin, when it is ready and every earlier request is done.
    ///
    /// # Errors
    /// What the plugin answered, and a failure to answer when its policy says so.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Answer> {
        if !self.events.has(question.event) {
            return Ok(Answer::Unasked);
        }
        let mut phase = self.phase.subscribe();
        let ready =
            phase.wait_for(|phase| *phase != Phase::Synchronizing).await.is_ok_and(|phase| *phase == Phase::Ready);
        let _turn = self.turn.lock().await;
        if !ready || *self.phase.borrow() == Phase::Closed {
            return Ok(Answer::Lost);
        }
        match self.call(question).await {
            Ok(answer) => Ok(answer),
            Err(error) => self.failed(question.event, &error),
        }
    }

    async fn call(&self, question: &Question) -> Result<Answer, kevel_ttrpc::Error> {
        let bit = 1 << question.event as u32;
        let method = event::method(question.event);
        if self.lacks.load(Ordering::Relaxed) & bit == 0 {
            match self.send(method, question.payload.clone(), self.timeout).await {
                Err(error) if error.code() == kevel_ttrpc::Code::Unimplemented => {
                    tracing::warn!(plugin = self.full_name, method, "an NRI plugin subscribed to what it lacks");
                    self.lacks.fetch_or(bit, Ordering::Relaxed);
                }
                other => return other.map(Answer::Given),
            }
        }
        // Older plugins have one method for all events without an answer.
        let Some(change) = &question.state_change else { return Ok(Answer::Unasked) };
        self.send("StateChange", change.encode_to_vec().into(), self.timeout).await.map(Answer::Given)
    }

    /// Calls a method of the plugin and counts it.
    pub(crate) async fn send(
        &self,
        method: &'static str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, kevel_ttrpc::Error> {
        let since = Instant::now();
        let answer =
            self.client.call_encoded(plugin_ttrpc::SERVICE, method, payload, CallOptions::timeout(timeout)).await;
        let error = answer.as_ref().err().map_or("", |error| label(error.code()));
        metrics::invoked(&self.full_name, method, since.elapsed(), error);
        answer
    }

    /// An error that the plugin answered fails the request. Silence is a failure of the plugin: the connection ends,
    /// unless it was only slow and is to be kept, and its policy says whether the request fails with it.
    fn failed(&self, event: Event, error: &kevel_ttrpc::Error) -> Result<Answer> {
        let method = event::method(event);
        let slow = error.code() == kevel_ttrpc::Code::DeadlineExceeded;
        let silent = slow || !matches!(error, kevel_ttrpc::Error::Status(_));
        if !silent {
            return Err(Error::unknown(format!("NRI plugin {} refused {method}: {error}", self.full_name)));
        }
        if !slow || !self.policy.keep_connected {
            tracing::error!(plugin = self.full_name, method, %error, "an NRI plugin failed; its connection ends");
            self.close();
        }
        if self.policy.fail_request {
            let code = if slow { Code::DeadlineExceeded } else { Code::Unavailable };
            return Err(Error::new(code, format!("NRI plugin {} did not answer {method}: {error}", self.full_name)));
        }
        tracing::warn!(plugin = self.full_name, method, %error, "an NRI plugin did not answer; going on without it");
        Ok(Answer::Lost)
    }
}

/// A code as a label of metrics.
fn label(code: kevel_ttrpc::Code) -> &'static str {
    use kevel_ttrpc::Code;
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
        _ => "unknown",
    }
}
