//! What was begun with a pod or a container, noted before it is done, so that a daemon that finds it half-done after a
//! crash finishes it.
//!
//! A note is a small file in the state directory of the pod or container and goes with it. It is not synced: it outlives
//! the daemon, and after a reboot no process is left that could be half-stopped. What is half-*made* needs no note, its
//! record says so ([`crate::record::Phase::Creating`], `complete`).

use std::{fs, io, path::Path};

use kevel_model::{Error, Result};

const FILE: &str = "intent";

/// What was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Ending it; a container gets SIGKILL at this time, in nanoseconds since the epoch.
    Stop(i64),
    /// Removing it.
    Remove,
}

/// Notes what is about to be done in a directory, which is made if it is not there. Blocks.
pub(crate) fn note(dir: &Path, intent: Intent) -> Result<()> {
    let text = match intent {
        Intent::Stop(at) => format!("stop {at}"),
        Intent::Remove => "remove".to_owned(),
    };
    // Whole or not at all: half a number would be another time.
    let new = dir.join(format!(".{FILE}"));
    let write = || {
        crate::files::make_dir(dir)?;
        fs::write(&new, &text)
            .and_then(|()| fs::rename(&new, dir.join(FILE)))
            .map_err(|error| Error::io(format!("noting what is begun in {}", dir.display()), error))
    };
    write()
}

/// What was begun and not finished; none when there is no note, or none that can be understood. Blocks.
pub(crate) fn read(dir: &Path) -> Option<Intent> {
    let text = fs::read_to_string(dir.join(FILE)).ok()?;
    match text.split_once(' ') {
        Some(("stop", at)) => at.parse().ok().map(Intent::Stop),
        None if text == "remove" => Some(Intent::Remove),
        _ => None,
    }
}

/// It is done. Blocks; a note that cannot be removed is finished once more after a restart, which does nothing.
pub(crate) fn clear(dir: &Path) {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "note of something that is done stays");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_until_they_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b");
        assert_eq!(read(&place), None);
        for intent in [Intent::Stop(17), Intent::Stop(i64::MAX), Intent::Remove] {
            note(&place, intent).unwrap();
            assert_eq!(read(&place), Some(intent));
        }
        clear(&place);
        clear(&place);
        assert_eq!(read(&place), None);
        for text in ["", "stop", "stop x", "stop 1 2", "remove it"] {
            fs::write(place.join(FILE), text).unwrap();
            assert_eq!(read(&place), None, "{text:?}");
        }
    }
}
