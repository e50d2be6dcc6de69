//! A container's state, and the file that it is kept in.

use std::{io, path::Path};

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::{ContainerState as Cri, LinuxContainerResources};
use serde::{Deserialize, Serialize};

use super::Stored;

/// What changes in a container's life. Times are nanoseconds since the epoch, 0 for not yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerState {
    /// Its first process on the host; 0 when it has none.
    pub(crate) pid: u32,
    /// When it was started.
    pub(crate) started_at: i64,
    /// When it ended.
    pub(crate) finished_at: i64,
    /// How it ended.
    pub(crate) exit_code: i32,
    /// Why, in a word.
    pub(crate) reason: String,
    /// Why, in a sentence.
    pub(crate) message: String,
    /// Whether the kernel killed one of its processes for want of memory.
    pub(crate) oom_killed: bool,
    /// Whether [`ContainerState::oom_killed`] is the kernel's count, which nobody's word changes.
    pub(crate) oom_counted: bool,
    /// Nothing is known of its process.
    pub(crate) unknown: bool,
    /// Its limits, when they were changed.
    pub(crate) resources: Option<Stored<LinuxContainerResources>>,
}

impl ContainerState {
    /// As CRI calls it.
    pub(crate) fn cri(&self) -> Cri {
        if self.unknown {
            Cri::ContainerUnknown
        } else if self.finished_at != 0 {
            Cri::ContainerExited
        } else if self.started_at != 0 {
            Cri::ContainerRunning
        } else {
            Cri::ContainerCreated
        }
    }
}

/// Writes the state so that a reader finds the old or the new one, never half of either. Blocks.
pub(crate) fn write_state(path: &Path, state: &ContainerState) -> Result<()> {
    let doing = || format!("writing container state {}", path.display());
    let text = serde_json::to_vec(state).map_err(|error| Error::internal(doing()).with_source(error))?;
    let new = path.with_extension("new");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)).map_err(|error| Error::io(doing(), error))
}

/// Reads the state; none when it was never written. Blocks.
pub(crate) fn read_state(path: &Path) -> Result<Option<ContainerState>> {
    let doing = || format!("reading container state {}", path.display());
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(doing(), error)),
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|error| Error::data_loss(doing()).with_source(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_follows_from_times_and_survives_the_file() {
        let check = |state: ContainerState, want: Cri| assert_eq!(state.cri(), want);
        check(ContainerState::default(), Cri::ContainerCreated);
        check(ContainerState { started_at: 1, ..Default::default() }, Cri::ContainerRunning);
        check(ContainerState { finished_at: 2, ..Default::default() }, Cri::ContainerExited);
        check(ContainerState { started_at: 1, unknown: true, ..Default::default() }, Cri::ContainerUnknown);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status");
        assert_eq!(read_state(&path).unwrap(), None);
        let resources = LinuxContainerResources { cpu_shares: 7, ..Default::default() };
        let state = ContainerState { pid: 9, resources: Some(Stored(resources)), ..Default::default() };
        write_state(&path, &state).unwrap();
        assert_eq!(read_state(&path).unwrap(), Some(state));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(read_state(&path).unwrap_err().code(), kevel_model::Code::DataLoss);
    }
}
