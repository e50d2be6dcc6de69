//! The kernel's word that it killed processes of a cgroup for want of memory: a counter to look at, and a watch that
//! waits for it.
//!
//! The counter goes with the cgroup. Who wants to know why a container ended looks before the cgroup is removed; where
//! somebody else may have removed it already (systemd does with its scopes), version 2's cgroup above still knows,
//! because it counts what is below.

#![expect(unsafe_code, reason = "tokio asks its caller to vouch for a descriptor that it waits on")]

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt as _;
use inotify::{EventMask, Inotify, WatchMask};
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::unix::AsyncFd;

use crate::{
    Place,
    file::{line, number, text},
};

/// Version 1 says it before it kills, and says it to every cgroup below the one whose limit was hit, where nobody may
/// be killed at all: milliseconds between the looks at the counter that follow.
const LOOKS: [u64; 7] = [0, 2, 8, 32, 128, 256, 512];

/// Counts the processes that the kernel killed in a place.
#[derive(Clone, Debug)]
pub struct OomCounter {
    /// `memory.events` in version 2, `memory.oom_control` in version 1.
    file: PathBuf,
    unified: bool,
}

impl OomCounter {
    /// The counter of a place; none where the memory controller is not there.
    pub fn of(place: &Place) -> Option<Self> {
        match &place.unified {
            Some(dir) => Some(Self { file: dir.join("memory.events"), unified: true }),
            None => place.v1("memory", "memory.oom_control").map(|file| Self { file, unified: false }),
        }
    }

    /// How many processes were killed, in version 2 with those of cgroups below. None when the cgroup is gone.
    pub fn kills(&self) -> Option<u64> {
        line(&text(&self.file), "oom_kill")
    }

    /// Whether the cgroup's own limit was what was hit, and not that of a cgroup above.
    pub fn own_limit_was_hit(&self) -> bool {
        if self.unified {
            return line(&text(&self.file), "oom").is_some_and(|hits| hits > 0);
        }
        // With a limit for memory and swap together, that one may be what is hit. Some kernels (6.18) do not count hits;
        // the most that was used tells as much.
        let read = |file: String| number(self.file.with_file_name(file));
        ["memory", "memory.memsw"].iter().any(|kind| {
            let most = read(format!("{kind}.max_usage_in_bytes")).zip(read(format!("{kind}.limit_in_bytes")));
            read(format!("{kind}.failcnt")).is_some_and(|hits| hits > 0)
                || most.is_some_and(|(most, limit)| most >= limit)
        })
    }

    /// Whether counts of cgroups below are among its own, so that they outlive these.
    pub fn counts_below(&self) -> bool {
        self.unified
    }

    /// Starts to wait for the next kill.
    ///
    /// # Errors
    /// When the cgroup is gone or the kernel offers no more watches. Needs a tokio runtime.
    pub fn watch(&self) -> io::Result<OomWatch> {
        let kind = if self.unified { Kind::v2(&self.file)? } else { Kind::v1(&self.file)? };
        Ok(OomWatch { counter: self.clone(), seen: self.kills().unwrap_or(0), kind })
    }
}

/// Waits for kills.
#[derive(Debug)]
pub struct OomWatch {
    counter: OomCounter,
    seen: u64,
    kind: Kind,
}

enum Kind {
    /// The kernel writes to the descriptor at every event, and when the cgroup goes.
    Descriptor(AsyncFd<OwnedFd>),
    /// The file changes at every event.
    File(inotify::EventStream<Vec<u8>>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Descriptor(_) => "descriptor",
            Self::File(_) => "file",
        })
    }
}

impl Kind {
    fn v1(file: &Path) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = OpenOptions::new().read(true).open(file)?;
        let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        std::fs::write(file.with_file_name("cgroup.event_control"), line)?;
        // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and it lives in the `AsyncFd`.
        let event = unsafe { AsyncFd::register(event) }.map_err(io::Error::from)?;
        Ok(Self::Descriptor(event))
    }

    fn v2(file: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify.watches().add(file, WatchMask::MODIFY)?;
        Ok(Self::File(inotify.into_event_stream(vec![0; 1024])?))
    }

    /// Waits until something happened; false when the cgroup is gone.
    async fn happened(&mut self) -> io::Result<bool> {
        match self {
            Self::Descriptor(event) => {
                let mut ready = event.readable().await?;
                let mut count = [0; 8];
                match rustix::io::read(event.as_fd(), &mut count) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                    Err(error) => return Err(error.into()),
                }
                Ok(true)
            }
            Self::File(stream) => match stream.next().await {
                None => Ok(false),
                Some(event) => Ok(!event?.mask.contains(EventMask::IGNORED)),
            },
        }
    }
}

impl OomWatch {
    /// Waits for the next kill and answers how many there were since the one before; none when the cgroup is gone.
    ///
    /// # Errors
    /// When the kernel does not say; the watch is of no use then.
    pub async fn next(&mut self) -> io::Result<Option<u64>> {
        loop {
            if !self.kind.happened().await? {
                return Ok(None);
            }
            for pause in if self.counter.unified { &LOOKS[..1] } else { &LOOKS } {
                tokio::time::sleep(Duration::from_millis(*pause)).await;
                let Some(kills) = self.counter.kills() else { return Ok(None) };
                let new = kills.saturating_sub(self.seen);
                self.seen = kills;
                if new > 0 {
                    return Ok(Some(new));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::fixture;

    #[test]
    fn both_versions_count() {
        let (dir, place) = fixture::v2(&[("memory.events", "low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\n")]);
        let counter = OomCounter::of(&place).unwrap();
        assert_eq!((counter.kills(), counter.own_limit_was_hit(), counter.counts_below()), (Some(2), true, true));
        std::fs::write(dir.path().join("memory.events"), "max 5\noom 0\noom_kill 2\n").unwrap();
        assert!(!counter.own_limit_was_hit());
        let files =
            [("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), ("memory.failcnt", "0\n")];
        let (dir, place) = fixture::v1(&files);
        let counter = OomCounter::of(&place).unwrap();
        assert_eq!((counter.kills(), counter.own_limit_was_hit(), counter.counts_below()), (Some(3), false, false));
        for file in ["memory.failcnt", "memory.memsw.failcnt"] {
            std::fs::write(dir.path().join(file), "9\n").unwrap();
            assert!(counter.own_limit_was_hit());
            std::fs::remove_file(dir.path().join(file)).unwrap();
        }
        std::fs::write(dir.path().join("memory.limit_in_bytes"), "4096\n").unwrap();
        for (most, want) in [("4095\n", false), ("4096\n", true)] {
            std::fs::write(dir.path().join("memory.max_usage_in_bytes"), most).unwrap();
            assert_eq!(counter.own_limit_was_hit(), want);
        }
        drop(dir);
        assert_eq!(counter.kills(), None);
        assert!(OomCounter::of(&Place::default()).is_none());
    }

    #[tokio::test]
    async fn a_changed_file_of_version_2_is_news_when_the_count_rose() {
        let (dir, place) = fixture::v2(&[("memory.events", "oom_kill 1\n")]);
        let file = dir.path().join("memory.events");
        let mut watch = OomCounter::of(&place).unwrap().watch().unwrap();
        let write = |text: &str| {
            use std::io::Write as _;
            // As the kernel does: the file is changed, never truncated.
            let mut file = OpenOptions::new().write(true).open(&file).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        write("oom_kill 1\n");
        write("oom_kill 4\n");
        assert_eq!(watch.next().await.unwrap(), Some(3));
        drop(dir); // removes the file
        assert_eq!(watch.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn version_1_registers_a_descriptor_for_the_control_file() {
        let (dir, place) = fixture::v1(&[("memory.oom_control", "oom_kill 0\n")]);
        let watch = OomCounter::of(&place).unwrap().watch().unwrap();
        let Kind::Descriptor(event) = &watch.kind else { panic!("{watch:?}") };
        let line = std::fs::read_to_string(dir.path().join("cgroup.event_control")).unwrap();
        let first = line.split(' ').next().unwrap();
        assert_eq!(first, event.as_raw_fd().to_string(), "{line}");
        let (_dir, gone) = fixture::v1(&[]);
        assert!(OomCounter::of(&gone).unwrap().watch().is_err());
    }
}
