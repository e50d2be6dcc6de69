//! Whether the kernel killed a process of a container for want of memory, asked when the container has ended and before
//! its cgroup is removed.

use kevel_cgroup::{OomCounter, Place};

use super::Meter;

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It killed none.
    No,
    /// It killed one, because of the container's own limit.
    Container,
    /// It killed one, because of the limit of a cgroup above: the pod's, or one of the node's.
    Above,
    /// The cgroup is gone and nothing above counted for it.
    Unknown,
}

impl Verdict {
    /// In a sentence, for the container's status.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::No | Self::Unknown => "",
            Self::Container => "the kernel killed a process because the container's memory limit was hit",
            Self::Above => {
                "the kernel killed a process because a memory limit above the container's was hit, the pod's or the node's"
            }
        }
    }
}

impl Meter {
    /// What became of a container's processes. `path` is its cgroup by its specification, for one whose process was
    /// never looked at. Blocks.
    pub(crate) fn oom(&self, id: &str, path: Option<&str>) -> Verdict {
        match (self.followed(id), path) {
            (Some(followed), _) => judge(&followed.place, followed.above.as_ref()),
            (None, Some(path)) if path.starts_with('/') => judge(&self.0.hierarchies.at(path), None),
            (None, _) => Verdict::Unknown,
        }
    }
}

fn judge(place: &Place, above: Option<&(OomCounter, u64)>) -> Verdict {
    let own = OomCounter::of(place);
    if let Some((counter, kills)) = own.and_then(|counter| counter.kills().map(|kills| (counter, kills))) {
        return match kills {
            0 => Verdict::No,
            _ if counter.own_limit_was_hit() => Verdict::Container,
            _ => Verdict::Above,
        };
    }
    // Gone. Others below the same cgroup may have been killed, too; that it was this one's process is then likely, for
    // its cgroup was removed because it ended.
    match above {
        Some((counter, before)) if counter.kills().is_some_and(|kills| kills > *before) => Verdict::Container,
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn place(dir: &Path, unified: bool) -> Place {
        let dir = dir.to_owned();
        match unified {
            true => Place { unified: Some(dir), ..Place::default() },
            false => Place { unified: None, controllers: [("memory".to_owned(), dir)].into() },
        }
    }

    #[test]
    fn counters_decide() {
        let check = |unified: bool, files: &[(&str, &str)], want: Verdict| {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(dir.path().join(name), text).unwrap();
            }
            assert_eq!(judge(&place(dir.path(), unified), None), want, "{files:?}");
        };
        check(true, &[("memory.events", "oom 0\noom_kill 0\n")], Verdict::No);
        check(true, &[("memory.events", "oom 2\noom_kill 1\n")], Verdict::Container);
        check(true, &[("memory.events", "oom 0\noom_kill 1\n")], Verdict::Above);
        check(true, &[], Verdict::Unknown);
        check(false, &[("memory.oom_control", "under_oom 0\noom_kill 0\n"), ("memory.failcnt", "7\n")], Verdict::No);
        check(false, &[("memory.oom_control", "oom_kill 1\n"), ("memory.failcnt", "7\n")], Verdict::Container);
        check(false, &[("memory.oom_control", "oom_kill 1\n"), ("memory.failcnt", "0\n")], Verdict::Above);
    }

    #[test]
    fn the_cgroup_above_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("memory.events");
        fs::write(&events, "oom_kill 3\n").unwrap();
        let above = OomCounter::of(&place(dir.path(), true)).map(|counter| (counter, 3));
        let gone = place(&dir.path().join("gone"), true);
        assert_eq!(judge(&gone, above.as_ref()), Verdict::Unknown);
        fs::write(&events, "oom_kill 4\n").unwrap();
        assert_eq!(judge(&gone, above.as_ref()), Verdict::Container);
    }
}
