//! CheckpointContainer: a running container becomes an archive, and goes on.

use std::{path::Path, sync::Arc};

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::CheckpointContainerRequest;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Status;

use super::{archive, capture::Gathered, left, partial, until};
use crate::{answer::status, check, counters::timed, index::Container, operation::stage, reach, server::Server};

impl Server {
    /// Writes a checkpoint of a container to the file that the request names. Nothing is left of one that fails.
    pub(crate) async fn checkpoint_container(
        self: &Arc<Self>,
        request: CheckpointContainerRequest,
    ) -> Result<(), Status> {
        let plan = || -> Result<(Arc<Container>, Instant)> {
            check::path("location", &request.location)?;
            let until = until(request.timeout)?;
            Ok((self.running(&request.container_id)?, until))
        };
        let (container, until) = plan().map_err(|error| status(&error))?;
        let id = container.record.id.clone();
        let key = format!("checkpoint container {id}");
        let (server, print) = (self.clone(), request.encode_to_vec());
        let work = || async move {
            let pod = server.index.pod(&container.record.sandbox_id)?;
            let timer =
                server.counters.container_checkpoint.with_label_values(&[server.runtime_of(&pod.record.handler)]);
            timed(&timer, checkpoint(&server, &id, &request.location, until)).await.map(|()| String::new())
        };
        self.operations.run(key, print, work).await.map(drop)
    }

    /// Whether a file can be written there. Nothing but a plain file is replaced.
    pub(super) async fn writable(&self, field: &'static str, to: String) -> Result<()> {
        self.reach.look(self.settings.config.host_path_timeout, move || may_write(field, &to)).await
    }

    /// Writes what was gathered to a file.
    pub(super) async fn pack(&self, field: &'static str, gathered: &Gathered, to: &Path, until: Instant) -> Result<()> {
        let (dir, log, to) = (gathered.path.clone(), gathered.log.clone(), to.to_owned());
        let note = dir.with_file_name(partial::FILE);
        let write = move || {
            reach::at(field, &to.to_string_lossy())?;
            archive::pack(&dir, &log, &to, &note)
        };
        self.reach.look(left(until)?, write).await
    }
}

async fn checkpoint(server: &Arc<Server>, id: &str, location: &str, until: Instant) -> Result<()> {
    stage("waiting for other work on the pod or container");
    let container = server.running(id)?;
    let pod = server.index.pod(&container.record.sandbox_id)?;
    let _shared = server.pods.share(&pod.record.id).await;
    let _alone = server.locks.alone(id).await;
    let container = server.running(id)?;
    stage("looking whether criu works");
    server.may_checkpoint(&*server.settings.handler(&pod.record.handler)?).await?;
    server.writable("location", location.to_owned()).await?;
    stage("pausing the container");
    server.freeze(id).await?;
    stage("writing the checkpoint");
    let gathered = server.capture(&container, until).await;
    server.thaw(id).await;
    let gathered = gathered?;
    stage("writing the archive");
    let packed = server.pack("location", &gathered, Path::new(location), until).await;
    gathered.remove().await;
    packed
}

fn may_write(field: &str, to: &str) -> Result<()> {
    reach::at(field, to)?;
    let path = Path::new(to);
    let parent = path.parent().filter(|_| path.file_name().is_some());
    let parent = parent.ok_or_else(|| Error::invalid_argument(format!("{field}: {to:?} is not a file's path")))?;
    if !parent.is_dir() {
        return Err(Error::failed_precondition(format!("{field}: {} is not a directory", parent.display())));
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => {
            Err(Error::failed_precondition(format!("{field}: {to:?} is there and is not a plain file")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        may_write("location", &at("new")).unwrap();
        std::fs::write(at("old"), "x").unwrap();
        may_write("location", &at("old")).unwrap();
        std::os::unix::fs::symlink("old", at("link")).unwrap();
        for (bad, why) in [("link", "not a plain file"), ("", "not a plain file"), ("none/x", "not a directory")] {
            let error = may_write("location", &at(bad)).unwrap_err().to_string();
            assert!(error.starts_with("location: ") && error.contains(why), "{bad}: {error}");
        }
        assert!(may_write("location", "/").unwrap_err().to_string().contains("not a file's path"));
    }
}
