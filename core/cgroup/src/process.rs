//! The processes of a cgroup and those below it, and what they hold open.

use std::{fs, path::Path};

use crate::{Place, file::text};

/// More cgroups, processes and open files than are looked at in one place, so that one container costs little whatever
/// it does.
const GROUPS: usize = 256;
const PROCESSES: usize = 4096;
const FILES: u64 = 65_536;

/// Processes, by the id that this process knows them by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes(pub Vec<u32>);

/// What processes hold open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// File descriptors.
    pub files: u64,
    /// Those that are sockets.
    pub sockets: u64,
}

impl Processes {
    /// Reads a place; at most 4096 of 256 cgroups.
    pub fn of(place: &Place) -> Self {
        let top = match &place.unified {
            Some(dir) => Some(dir),
            None => ["pids", "memory", "cpuacct", "cpu"].iter().find_map(|name| place.controllers.get(*name)),
        };
        let mut found = Vec::new();
        let mut dirs: Vec<_> = top.cloned().into_iter().collect();
        let mut looked = 0;
        while let Some(dir) = dirs.pop() {
            looked += 1;
            found.extend(text(dir.join("cgroup.procs")).lines().filter_map(|line| line.parse::<u32>().ok()));
            if looked >= GROUPS || found.len() >= PROCESSES {
                break;
            }
            let below = fs::read_dir(&dir).into_iter().flatten().flatten();
            dirs.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|one| one.path()));
        }
        found.retain(|pid| *pid != 0); // of another process namespace
        found.truncate(PROCESSES);
        Self(found)
    }

    /// Counts what the processes hold open; 65536 at most are looked at.
    pub fn descriptors(&self) -> Descriptors {
        let mut sum = Descriptors::default();
        for pid in &self.0 {
            count(&Path::new("/proc").join(pid.to_string()).join("fd"), &mut sum);
            if sum.files >= FILES {
                break;
            }
        }
        sum
    }

    /// The soft limit of open files of the first process; none when it is gone, `u64::MAX` for no limit.
    pub fn open_files_limit(&self) -> Option<u64> {
        limit(&text(format!("/proc/{}/limits", self.0.first()?)))
    }
}

fn limit(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

fn count(dir: &Path, sum: &mut Descriptors) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        sum.files += 1;
        if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
        {
            sum.sockets += 1;
        }
        if sum.files >= FILES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::fixture;

    #[test]
    fn processes_of_groups_below() {
        let (dir, place) = fixture::v2(&[("cgroup.procs", "5\n0\n")]);
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/cgroup.procs"), "7\nx\n").unwrap();
        assert_eq!(Processes::of(&place).0, [5, 7]);
        assert_eq!(Processes::of(&Place::default()), Processes::default());
    }

    #[test]
    fn files_and_sockets_of_a_process() {
        // Another process, since other tests open and close files of this one meanwhile.
        let (input, output) = std::os::unix::net::UnixStream::pair().unwrap();
        let (input, output) = (std::os::fd::OwnedFd::from(input), std::os::fd::OwnedFd::from(output));
        let mut sleeper = std::process::Command::new("sleep").arg("1000").stdin(input).stdout(output).spawn().unwrap();
        let processes = Processes(vec![sleeper.id()]);
        let (found, limit) = (processes.descriptors(), processes.open_files_limit());
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(found.files >= 3 && found.sockets >= 2, "{found:?}");
        assert!(limit.unwrap() > 0);
        assert_eq!(Processes(vec![]).descriptors(), Descriptors::default());
    }

    #[test]
    fn limits_of_files() {
        let table =
            |soft: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files   {soft}   1048576   files\n");
        assert_eq!(limit(&table("1024")), Some(1024));
        assert_eq!(limit(&table("unlimited")), Some(u64::MAX));
        assert_eq!(limit("Max processes 1 2 3\n"), None);
    }
}
