//! Delete: the task in its shim, then the shim, then the bundle. Doing it again answers the same.

use kevel_contract::{Scope, task::Deleted};
use kevel_proto::shim::task::{DeleteRequest, DeleteResponse, method};
use kevel_ttrpc::Code;

use super::TaskManager;
use crate::{Error, Result, manager::deleted, shim::is};

impl TaskManager {
    pub(super) async fn delete_task(&self, scope: &Scope, id: &str) -> Result<Deleted> {
        let before = || self.shims.exit(&scope.namespace, id);
        let shim = match self.shim(scope, id).await {
            Ok(shim) => shim,
            Err(error) => return before().ok_or(error),
        };
        let ending = shim.ending.lock().await;
        if shim.gone.is_cancelled() {
            return before().ok_or_else(|| Error::Gone { id: id.to_owned() });
        }
        let request = DeleteRequest { id: id.to_owned(), exec_id: String::new() };
        let delete = async |limit| shim.task::<_, DeleteResponse>(method::DELETE, &request, Some(limit)).await;
        let mut answer = delete(self.shims.timeouts().delete).await;
        if answer.as_ref().is_err_and(refused) && self.shims.thaw_ended(&shim).await {
            tracing::warn!(id, "a container that ended was frozen");
            answer = delete(self.shims.timeouts().delete).await;
        }
        if answer.as_ref().is_err_and(late) {
            // The runtime hangs, or the shim does.
            self.shims.unstick(&shim).await;
            answer = delete(self.shims.timeouts().state).await;
        }
        if answer.as_ref().is_err_and(late) && !self.shims.answers(&shim).await {
            drop(ending);
            self.shims.kill_shim(&shim).await;
            return before().ok_or_else(|| Error::Gone { id: id.to_owned() });
        }
        match answer {
            Ok(response) => {
                let deleted = deleted(id, response);
                self.shims.remember(&shim, deleted.clone());
                self.shims.release(&shim).await;
                Ok(deleted)
            }
            // It was deleted before, by somebody whose answer was lost.
            Err(error) if is(&error, Code::NotFound) => {
                self.shims.release(&shim).await;
                before().ok_or(error)
            }
            Err(error) if error.is_closed() => {
                drop(ending);
                // Its watch cleans up: one run of a binary, one directory.
                let limit = self.shims.timeouts().cleanup * 2;
                let _ = tokio::time::timeout(limit, shim.gone.cancelled()).await;
                before().ok_or_else(|| Error::Gone { id: id.to_owned() })
            }
            Err(error) => {
                drop(ending);
                if !self.shims.break_off(&shim).await {
                    return Err(error);
                }
                before().ok_or(error)
            }
        }
    }

    pub(super) async fn delete_exec(&self, scope: &Scope, id: &str, exec_id: &str) -> Result<Deleted> {
        if exec_id.is_empty() {
            return Err(Error::Invalid("exec_id: must name a process; delete the task to remove its first one".into()));
        }
        let shim = self.shim(scope, id).await?;
        let request = DeleteRequest { id: id.to_owned(), exec_id: exec_id.to_owned() };
        let limit = self.shims.timeouts().work;
        let response: DeleteResponse = self.shims.call(&shim, method::DELETE, &request, Some(limit)).await?;
        Ok(deleted(exec_id, response))
    }
}

/// It is there, and the runtime does not delete it.
fn refused(error: &Error) -> bool {
    !late(error) && !error.is_closed() && !is(error, Code::NotFound)
}

fn late(error: &Error) -> bool {
    error.code() == kevel_model::Code::DeadlineExceeded
}
