//! Pods that something is left of: a removal of their network that failed, the rest of an undo, what was half-done when the
//! daemon was killed. Each is gone on with in the background, with growing pauses, until nothing is left.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kevel_model::{Error, Result};

use super::{remove, stop};
use crate::{intent::Intent, record::Phase, server::Server};

/// The first pause after a failure; each next one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(300);

/// What is being gone on with, by pod, and why it is not done yet.
#[derive(Default)]
pub(crate) struct Unfinished {
    pods: Mutex<BTreeMap<String, String>>,
}

impl Server {
    /// What is left of which pods, in words, for the verbose status.
    pub(crate) fn unfinished(&self) -> BTreeMap<String, String> {
        self.unfinished.pods.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on in the background with what failed for `why`. One that is gone on with already is left to that.
    pub(crate) fn finish_later(self: &Arc<Self>, id: &str, intent: Intent, why: &Error) {
        self.go_on(id, intent, FIRST, why.chain());
    }

    /// Goes on in the background with what a daemon before had begun.
    pub(crate) fn finish(self: &Arc<Self>, id: &str, intent: Intent) {
        self.go_on(id, intent, Duration::ZERO, "a daemon before this one had begun it".to_owned());
    }

    fn go_on(self: &Arc<Self>, id: &str, intent: Intent, pause: Duration, why: String) {
        if self.still(id, why).is_some() {
            return;
        }
        let (server, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            let mut pause = pause;
            loop {
                tokio::time::sleep(pause).await;
                let done = {
                    let _alone = server.pods.alone(&id).await;
                    go_on_with(&server, &id, intent).await
                };
                let Err(error) = done else { break };
                pause = (pause * 2).clamp(FIRST, LONGEST);
                let why = error.chain();
                tracing::warn!(sandbox = id, error = why, ?pause, "something is left of a pod; trying again");
                server.still(&id, why);
            }
            server.unfinished.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            tracing::info!(sandbox = id, "nothing is left to be done for a pod");
        });
    }

    fn still(&self, id: &str, why: String) -> Option<String> {
        self.unfinished.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), why)
    }
}

/// The caller has locked the pod. Somebody may have finished it meanwhile.
async fn go_on_with(server: &Arc<Server>, id: &str, intent: Intent) -> Result<()> {
    let Ok(pod) = server.index.pod(id) else { return Ok(()) };
    match (pod.record.phase, intent) {
        (Phase::Creating, _) => server.undo_pod(&pod.record).await,
        (Phase::Stopped, Intent::Stop(_)) => Ok(()),
        (_, Intent::Stop(_)) => stop::stop(server, id).await,
        (_, Intent::Remove) => remove::stop_and_remove(server, &pod).await,
    }
}
