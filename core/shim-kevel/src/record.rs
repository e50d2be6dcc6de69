//! What a bundle says of its container: with which runtime and options it was made, its first process, and how that ended.
//! It is all that is left when the shim has died.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kevel_shim::{Exit, read_small, write_small};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    options::Options,
};

const OPTIONS: &str = "options.json";
const RUNTIME: &str = "runtime";
const EXIT: &str = "exit.json";

/// The file to which the runtime writes the id of the first process.
pub(crate) fn pid_file(bundle: &Path) -> PathBuf {
    bundle.join("init.pid")
}

/// The id in a file of the runtime's.
pub(crate) fn read_pid(path: &Path) -> Result<Option<u32>> {
    let Some(text) = read_small(path)? else { return Ok(None) };
    let pid = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok());
    Ok(Some(pid.ok_or_else(|| Error::Invalid(format!("{path:?} holds no process id")))?))
}

/// Notes what a container is made with.
pub(crate) fn note_options(bundle: &Path, options: &Options) -> Result<()> {
    let json = serde_json::to_vec(options).map_err(|error| Error::Invalid(format!("options: {error}")))?;
    write_small(&bundle.join(OPTIONS), &json)?;
    Ok(write_small(&bundle.join(RUNTIME), options.binary_name.as_bytes())?)
}

/// What a container was made with; the usual when nothing is noted.
pub(crate) fn read_options(bundle: &Path) -> Result<Options> {
    let Some(json) = read_small(&bundle.join(OPTIONS))? else { return Ok(Options::default()) };
    serde_json::from_slice(&json).map_err(|error| Error::Invalid(format!("{OPTIONS}: {error}")))
}

#[derive(Serialize, Deserialize)]
struct Ended {
    pid: u32,
    status: u32,
    /// Nanoseconds since 1970.
    at: u64,
}

/// Notes how the first process ended.
pub(crate) fn note_exit(bundle: &Path, pid: u32, exit: Exit) -> Result<()> {
    let at = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().try_into().unwrap_or(u64::MAX);
    let json = serde_json::to_vec(&Ended { pid, status: exit.status, at });
    let json = json.map_err(|error| Error::Invalid(format!("{EXIT}: {error}")))?;
    Ok(write_small(&bundle.join(EXIT), &json)?)
}

/// How the first process ended, if that was noted.
pub(crate) fn read_exit(bundle: &Path) -> Result<Option<(u32, Exit)>> {
    let Some(json) = read_small(&bundle.join(EXIT))? else { return Ok(None) };
    let ended: Ended = serde_json::from_slice(&json).map_err(|error| Error::Invalid(format!("{EXIT}: {error}")))?;
    let at = UNIX_EPOCH.checked_add(Duration::from_nanos(ended.at)).unwrap_or_else(SystemTime::now);
    Ok(Some((ended.pid, Exit { status: ended.status, at })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path();
        assert_eq!(read_options(bundle).unwrap(), Options::default());
        assert_eq!(read_exit(bundle).unwrap(), None);
        assert_eq!(read_pid(&pid_file(bundle)).unwrap(), None);
        let options = Options { binary_name: "crun".into(), ..Options::default() };
        note_options(bundle, &options).unwrap();
        assert_eq!(read_options(bundle).unwrap(), options);
        let exit = Exit { status: 3, at: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789) };
        note_exit(bundle, 9, exit).unwrap();
        assert_eq!(read_exit(bundle).unwrap(), Some((9, exit)));
        std::fs::write(pid_file(bundle), "77").unwrap();
        assert_eq!(read_pid(&pid_file(bundle)).unwrap(), Some(77));
        std::fs::write(pid_file(bundle), "x").unwrap();
        assert!(read_pid(&pid_file(bundle)).is_err());
    }
}
