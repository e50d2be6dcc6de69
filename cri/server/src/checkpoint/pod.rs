//! CheckpointPod: containers of a pod at one moment. All are held still before the first is looked at, and go on when the
//! last was, or when it is over for another reason.
//!
//! A directory of the caller's gets an archive for each container, as CheckpointContainer writes it, and `pod.dump`, which
//! says which is whose.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::CheckpointPodRequest;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Status;

use super::{capture::Gathered, left};
use crate::{
    answer::status,
    check,
    index::{Container, Pod},
    operation::stage,
    patience, reach,
    server::Server,
};

/// The file that says what is in a directory.
pub(super) const DUMP: &str = "pod.dump";
const VERSION: u32 = 1;
/// The largest such file, in bytes.
const LIMIT: u64 = 1 << 20;

/// What `pod.dump` says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Dump {
    version: u32,
    /// The pod that it was.
    pod: String,
    /// Archives by the metadata names of containers.
    pub(super) containers: BTreeMap<String, String>,
}

impl Server {
    /// Writes checkpoints of containers of a pod into a directory, which is empty and stays so if it fails.
    pub(crate) async fn checkpoint_pod(self: &Arc<Self>, request: CheckpointPodRequest) -> Result<(), Status> {
        let plan = || -> Result<(Arc<Pod>, Vec<Arc<Container>>, Instant)> {
            check::path("output_path", &request.output_path)?;
            no_options(&request.options)?;
            let missing = "the call has no deadline; containers would be held still without one";
            let until = patience::deadline().ok_or_else(|| Error::invalid_argument(missing))?;
            let pod = self.index.pod(&request.pod_sandbox_id)?;
            Ok((pod.clone(), self.selected(&pod, &request.container_ids)?, until))
        };
        let (pod, containers, until) = plan().map_err(|error| status(&error))?;
        let (server, print) = (self.clone(), request.encode_to_vec());
        let key = format!("checkpoint pod sandbox {}", pod.record.id);
        let work = || async move {
            checkpoint(&server, &pod, containers, &request.output_path, until).await.map(|()| String::new())
        };
        self.operations.run(key, print, work).await.map(drop)
    }

    /// Containers that run in a pod, each named once, in order of their ids.
    fn selected(&self, pod: &Pod, ids: &[String]) -> Result<Vec<Arc<Container>>> {
        if ids.is_empty() {
            return Err(Error::invalid_argument("container_ids: empty"));
        }
        let mut selected = BTreeMap::new();
        for (index, id) in ids.iter().enumerate() {
            let field = format!("container_ids[{index}]");
            let container = self.running(id).map_err(|error| error.context(field.clone()))?;
            if container.record.sandbox_id != pod.record.id {
                return Err(Error::invalid_argument(format!("{field}: a container of another pod")));
            }
            if selected.insert(container.record.id.clone(), container).is_some() {
                return Err(Error::invalid_argument(format!("{field}: named twice")));
            }
        }
        Ok(selected.into_values().collect())
    }
}

/// There are none yet.
pub(super) fn no_options(options: &BTreeMap<String, String>) -> Result<()> {
    options.keys().next().map_or(Ok(()), |key| Err(Error::invalid_argument(format!("options: {key:?} is not known"))))
}

async fn checkpoint(
    server: &Arc<Server>,
    pod: &Pod,
    containers: Vec<Arc<Container>>,
    output: &str,
    until: Instant,
) -> Result<()> {
    stage("waiting for other work on the pod or its containers");
    let _shared = server.pods.share(&pod.record.id).await;
    let mut alone = Vec::new();
    for container in &containers {
        alone.push(server.locks.alone(&container.record.id).await); // in order of ids, so that nobody waits for ever
        server.running(&container.record.id)?;
    }
    stage("looking whether criu works");
    server.may_checkpoint(&*server.settings.handler(&pod.record.handler)?).await?;
    let at = output.to_owned();
    server.reach.look(server.settings.config.host_path_timeout, move || is_empty(&at)).await?;
    stage("pausing the containers");
    let mut gathered = Vec::new();
    let captured = capture(server, &containers, &mut gathered, until).await;
    for container in &containers {
        server.thaw(&container.record.id).await;
    }
    drop(alone);
    stage("writing the archives");
    let written = match captured {
        Ok(()) => write(server, pod, &containers, &gathered, Path::new(output), until).await,
        Err(error) => Err(error),
    };
    for one in gathered {
        one.remove().await;
    }
    if written.is_err() {
        let at = PathBuf::from(output);
        let cleared = server.reach.look(server.settings.config.host_path_timeout, move || clear(&at)).await;
        if let Err(error) = cleared {
            tracing::warn!(error = error.chain(), "parts of a checkpoint stay");
        }
    }
    written
}

async fn capture(
    server: &Arc<Server>,
    containers: &[Arc<Container>],
    gathered: &mut Vec<Gathered>,
    until: Instant,
) -> Result<()> {
    for container in containers {
        left(until)?;
        server.freeze(&container.record.id).await?;
    }
    stage("writing the checkpoints");
    for container in containers {
        gathered.push(server.capture(container, until).await?);
    }
    Ok(())
}

async fn write(
    server: &Arc<Server>,
    pod: &Pod,
    containers: &[Arc<Container>],
    gathered: &[Gathered],
    output: &Path,
    until: Instant,
) -> Result<()> {
    let mut dump = Dump { version: VERSION, pod: pod.record.id.clone(), containers: BTreeMap::new() };
    for (container, gathered) in containers.iter().zip(gathered) {
        let name = container.record.config.metadata.clone().unwrap_or_default().name;
        let archive = format!("{}.tar", container.record.id);
        server.pack("output_path", gathered, &output.join(&archive), until).await?;
        if dump.containers.insert(name.clone(), archive).is_some() {
            return Err(Error::failed_precondition(format!("container_ids: two containers have the name {name:?}")));
        }
    }
    let text = serde_json::to_vec(&dump).map_err(|error| Error::internal("writing pod.dump").with_source(error))?;
    let at = output.join(DUMP);
    let write = move || {
        reach::at("output_path", &at.to_string_lossy())?;
        write_private(&at, &text).map_err(|error| Error::io(format!("writing {}", at.display()), error))
    };
    server.reach.look(left(until)?, write).await
}

fn write_private(at: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(at)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Refuses a directory that is not there or holds anything. Blocks.
fn is_empty(output: &str) -> Result<()> {
    reach::at("output_path", output)?;
    let mut entries = fs::read_dir(output).map_err(|error| Error::io(format!("output_path: {output:?}"), error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::failed_precondition(format!("output_path: {output:?} is not empty"))),
    }
}

/// Empties a directory, which was empty before. Blocks.
fn clear(output: &Path) -> Result<()> {
    reach::at("output_path", &output.to_string_lossy())?;
    for entry in fs::read_dir(output).into_iter().flatten().flatten() {
        fs::remove_file(entry.path())
            .map_err(|error| Error::io(format!("removing {}", entry.path().display()), error))?;
    }
    Ok(())
}

/// What a directory says of itself. Blocks.
pub(super) fn read(path: &str) -> Result<Dump> {
    reach::at("checkpoint_path", path)?;
    let wrong = |why: String| Error::invalid_argument(format!("checkpoint_path: {path:?}: {why}"));
    let at = Path::new(path).join(DUMP);
    let size = fs::metadata(&at).map_err(|error| wrong(format!("{DUMP}: {error}")))?.len();
    if size > LIMIT {
        return Err(wrong(format!("{DUMP} is too large")));
    }
    let text = fs::read(&at).map_err(|error| wrong(format!("{DUMP}: {error}")))?;
    let dump: Dump = serde_json::from_slice(&text).map_err(|error| wrong(format!("{DUMP}: {error}")))?;
    if dump.version != VERSION {
        return Err(wrong(format!("{DUMP} has version {}, not {VERSION}", dump.version)));
    }
    let is_name = |name: &String| !name.contains('/') && name.ends_with(".tar") && !name.starts_with('.');
    match dump.containers.values().find(|name| !is_name(name)) {
        Some(name) => Err(wrong(format!("{DUMP} names {name:?}"))),
        None => Ok(dump),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_says_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        is_empty(path).unwrap();
        assert!(read(path).unwrap_err().to_string().contains("pod.dump"));
        for (bad, why) in [
            ("{", "pod.dump"),
            (r#"{"version":2,"pod":"p","containers":{}}"#, "version 2"),
            (r#"{"version":1,"pod":"p","containers":{"a":"../x.tar"}}"#, "names"),
            (r#"{"version":1,"pod":"p","containers":{"a":"/etc/x.tar"}}"#, "names"),
        ] {
            fs::write(dir.path().join(DUMP), bad).unwrap();
            let error = read(path).unwrap_err().to_string();
            assert!(error.starts_with("checkpoint_path: ") && error.contains(why), "{error}");
        }
        assert!(is_empty(path).unwrap_err().to_string().contains("is not empty"));
        fs::write(dir.path().join(DUMP), r#"{"version":1,"pod":"p","containers":{"a":"x.tar"}}"#).unwrap();
        assert_eq!(read(path).unwrap().containers["a"], "x.tar");
        clear(dir.path()).unwrap();
        is_empty(path).unwrap();
    }
}
