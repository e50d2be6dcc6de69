//! The cgroup of a restored container. On version 2 CRIU puts processes back where they were saved, whatever the runtime asks
//! it for: into the cgroup of another container, whose limits, device rules and end they would share, and in which their own
//! runtime does not find them. They are moved to the cgroup that the runtime made for them.

use std::{fs, io, path::PathBuf};

use kevel_cgroup::Families;

/// A process may fork between a look at its children and its move; so many looks are taken at most.
const LOOKS: usize = 16;

/// What is looked at, as the kernel shows it.
pub(super) struct Kernel {
    proc: PathBuf,
    cgroups: PathBuf,
}

impl Kernel {
    /// The node's, if it has version 2 alone.
    pub(super) fn of_node() -> Option<Self> {
        let cgroups = PathBuf::from("/sys/fs/cgroup");
        let unified = cgroups.join("cgroup.controllers").exists();
        unified.then(|| Self { proc: "/proc".into(), cgroups })
    }

    /// Moves the first process of a container and its descendants to the container's own cgroup. Says whether they were
    /// elsewhere. The cgroup that they were in goes if nothing is left in it: CRIU makes it anew where its container is gone.
    pub(super) fn settle(&self, first: u32, own: &str) -> io::Result<bool> {
        let Some(found) = self.cgroup(first).filter(|found| found != own) else { return Ok(false) };
        let target = self.path(own);
        for _ in 0..LOOKS {
            let mut strays = Vec::new();
            for pid in Families::of(&self.proc)?.whole(vec![first]) {
                if self.cgroup(pid).is_some_and(|cgroup| cgroup != own) {
                    strays.push(pid);
                }
            }
            if strays.is_empty() {
                let _ = fs::remove_dir(self.path(&found)); // refused while it is in use
                return Ok(true);
            }
            for pid in strays {
                match fs::write(target.join("cgroup.procs"), pid.to_string()) {
                    Err(error) if error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Err(io::Error::other("its processes fork faster than they are moved"))
    }

    fn path(&self, cgroup: &str) -> PathBuf {
        self.cgroups.join(cgroup.trim_start_matches('/'))
    }

    /// The cgroup of a process; one that has ended has none.
    fn cgroup(&self, pid: u32) -> Option<String> {
        let table = fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")).ok()?;
        table.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel of files: a process is where its file says, and a move is seen in what was written.
    fn kernel(processes: &[(u32, u32, &str)]) -> (tempfile::TempDir, Kernel) {
        let dir = tempfile::tempdir().unwrap();
        let kernel = Kernel { proc: dir.path().join("proc"), cgroups: dir.path().join("cgroup") };
        for (pid, parent, cgroup) in processes {
            let process = kernel.proc.join(pid.to_string());
            fs::create_dir_all(&process).unwrap();
            fs::write(process.join("stat"), format!("{pid} (a) b) S {parent} 1 1")).unwrap();
            fs::write(process.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
            fs::create_dir_all(kernel.path(cgroup)).unwrap();
        }
        (dir, kernel)
    }

    #[test]
    fn what_is_at_home_stays() {
        let (_dir, kernel) = kernel(&[(7, 1, "/pod/new")]);
        assert!(!kernel.settle(7, "/pod/new").unwrap());
        assert!(!kernel.path("/pod/new/cgroup.procs").exists());
        assert!(!kernel.settle(8, "/pod/new").unwrap(), "nor does what has ended");
    }

    #[test]
    fn what_does_not_move_is_an_error() {
        let (_dir, kernel) = kernel(&[(7, 1, "/pod/old"), (8, 7, "/pod/old")]);
        assert_eq!(kernel.settle(7, "/pod/new").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir_all(kernel.path("/pod/new")).unwrap();
        let error = kernel.settle(7, "/pod/new").unwrap_err(); // files do not move processes
        assert!(error.to_string().contains("fork faster"), "{error}");
        assert_eq!(fs::read_to_string(kernel.path("/pod/new/cgroup.procs")).unwrap(), "8");
        assert!(kernel.path("/pod/old").exists());
    }
}
