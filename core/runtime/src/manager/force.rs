//! Ending a container whose shim does not do it. Who asks for SIGKILL is promised an end: when the call is not answered,
//! or the end does not come, this goes on by itself, step by step:
//!
//! 1. what is in the container's cgroup is killed, and the runtime's processes that the shim waits for;
//! 2. a shim that knows the end by then is well, and so is one that still answers that the container runs: then the
//!    kernel does not let go of a process (its disk or server hangs), which no force changes;
//! 3. any other shim is killed. Its binary's `delete` removes what is left, and the events that it can no longer send are
//!    sent in its name, as for every shim that dies.

use std::{sync::Arc, time::Duration};

use kevel_proto::shim::task::{ConnectRequest, ConnectResponse, method};
use kevel_ttrpc::Code;

use super::{ShimManager, cgroup, start::blocking, stray, stuck::Stage};
use crate::{Error, Result, Shim, shim::is};

/// The status "stopped" of the task API.
const STOPPED: i32 = 3;
/// Between two looks at whether the end has come.
const LOOK: Duration = Duration::from_millis(100);

/// What a shim says of a container.
enum Answer {
    /// It has ended.
    Ended,
    /// It runs.
    Runs,
    /// Nothing.
    Silence,
}

impl ShimManager {
    /// Watches that a container ends that was sent SIGKILL; with force when it does not. Once for each container.
    pub(crate) fn expect_end(&self, shim: &Arc<Shim>) {
        if shim.ends_soon() {
            return;
        }
        let (manager, shim) = (self.clone(), shim.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = manager.inner.closing.cancelled() => return,
                () = shim.gone.cancelled() => return,
                () = tokio::time::sleep(manager.inner.timeouts.end) => {}
            }
            if matches!(manager.ask(&shim).await, Answer::Ended) {
                return;
            }
            tracing::warn!(id = shim.id, pid = shim.pid(), "a killed container does not end");
            if let Err(error) = manager.force(&shim).await {
                tracing::error!(
                    id = shim.id,
                    error = kevel_model::Error::from(error).chain(),
                    "a container does not end"
                );
            }
            shim.ends_no_more();
        });
    }

    /// Ends a container with every means there is.
    ///
    /// # Errors
    ///
    /// [`Error::Unkillable`].
    pub(crate) async fn force(&self, shim: &Shim) -> Result<()> {
        let _one = shim.forcing.lock().await;
        if shim.gone.is_cancelled() {
            return Ok(());
        }
        let (init, id) = (shim.init(), shim.id.clone());
        let killed = blocking(move || Ok(init.is_some_and(|pid| cgroup::kill(pid, &id)))).await.unwrap_or(false);
        let runtimes = self.unstick(shim).await;
        tracing::warn!(id = shim.id, cgroup = killed, runtimes, "ended a container's processes without its shim");
        self.stuck(shim, Stage::Forced).await;
        let end = tokio::time::Instant::now() + self.inner.timeouts.end;
        loop {
            match self.ask(shim).await {
                Answer::Ended => return Ok(()),
                Answer::Runs if tokio::time::Instant::now() < end => tokio::time::sleep(LOOK).await,
                // It may wait for the runtime once more: when a process ends, a shim has the others of it killed.
                Answer::Silence if tokio::time::Instant::now() < end => _ = self.unstick(shim).await,
                Answer::Silence => break,
                Answer::Runs => return Err(Error::Unkillable { id: shim.id.clone() }),
            }
        }
        self.kill_shim(shim).await;
        Ok(())
    }

    /// Kills a shim and cleans up after it, unless it is a sandbox controller's, which is only let go of. Other containers that it serves are cleaned up after by their own watches.
    pub(crate) async fn kill_shim(&self, shim: &Shim) {
        tracing::error!(id = shim.id, pid = shim.pid(), "killing a shim that does not answer");
        self.stuck(shim, Stage::Killed).await;
        if !shim.hosted && !shim.kill() {
            let path = shim.bundle.path.clone();
            let _ = blocking(move || {
                stray::kill(&path);
                Ok(())
            })
            .await;
        }
        // Even if the kernel does not let go of it: nobody talks to it any more.
        shim.close();
        self.lost(shim).await;
    }

    /// Kills the runtime's processes that the shim runs for one container. Answers how many there were.
    pub(crate) async fn unstick(&self, shim: &Shim) -> usize {
        let (Some(parent), id) = (shim.pid(), shim.id.clone()) else { return 0 };
        let killed = blocking(move || Ok(stray::kill_runtimes(parent, &id))).await;
        killed.unwrap_or(0)
    }

    /// Ends the runtime's checkpoint of the container, and CRIU, which would hold it still again. Nobody takes what they write.
    pub(crate) async fn end_checkpoint(&self, shim: &Shim) {
        let (Some(parent), id) = (shim.pid(), shim.id.clone()) else { return };
        let killed = blocking(move || Ok(stray::kill_checkpoints(parent, &id))).await.unwrap_or(0);
        if killed > 0 {
            tracing::warn!(id = shim.id, processes = killed, "killed what made a checkpoint in vain");
        }
    }

    /// Lets a container go on that has ended and is frozen all the same; no runtime deletes it before. One that somebody paused
    /// stays so. Answers whether it was.
    pub(crate) async fn thaw_ended(&self, shim: &Shim) -> bool {
        if !matches!(self.ask(shim).await, Answer::Ended) {
            return false;
        }
        let bundle = shim.bundle.path.clone();
        blocking(move || Ok(cgroup::thaw(&bundle))).await.unwrap_or(false)
    }

    /// What the shim knows of the container. One that answers for itself but not for the container is as good as silent:
    /// it never will.
    async fn ask(&self, shim: &Shim) -> Answer {
        if shim.gone.is_cancelled() || shim.is_closed() {
            return Answer::Ended; // its watch cleans up
        }
        match shim.state_at_all(self.inner.timeouts.state).await {
            Ok(state) if state.status == STOPPED => Answer::Ended,
            Ok(_) => Answer::Runs,
            Err(error) if is(&error, Code::NotFound) || error.is_closed() => Answer::Ended,
            Err(Error::Call { source: kevel_ttrpc::Error::Status(status), .. })
                if status.code != Code::DeadlineExceeded =>
            {
                Answer::Runs
            }
            Err(_) => Answer::Silence,
        }
    }

    /// Whether the shim answers at all.
    pub(crate) async fn answers(&self, shim: &Shim) -> bool {
        let request = ConnectRequest { id: shim.id.clone() };
        let answer = shim.task::<_, ConnectResponse>(method::CONNECT, &request, Some(self.inner.timeouts.state)).await;
        !matches!(answer, Err(error) if error.code() == kevel_model::Code::DeadlineExceeded || error.is_closed())
    }
}
