//! What a test left behind: processes, mounts, network namespaces, cgroups that carry the test's name.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Everything found that carries a mark.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Processes, as `pid command`.
    pub processes: Vec<String>,
    /// Mount points.
    pub mounts: Vec<String>,
    /// Cgroup directories.
    pub cgroups: Vec<String>,
}

impl Leaks {
    /// Looks for what carries `mark` (a part of a path that only this test uses).
    pub fn of(mark: &str) -> Self {
        Self { processes: processes(mark), mounts: mounts(mark), cgroups: cgroups(mark) }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// Processes in the cgroups that carry the mark, which may tell it nowhere else: those of containers.
pub(crate) fn members(mark: &str) -> Vec<String> {
    let read = |folder: PathBuf| fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<_> =
        folders(mark).into_iter().map(read).collect::<String>().lines().map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// Removes the cgroups that carry the mark and have no members.
pub(crate) fn remove_cgroups(mark: &str) {
    for folder in folders(mark).iter().rev() {
        let _ = fs::remove_dir(folder); // one that is in use stays, and is found
    }
}

/// The cgroups that carry the mark, and those in them, each after the one that it is in.
fn folders(mark: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = cgroups(mark).into_iter().map(PathBuf::from).collect();
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let inner = fs::read_dir(folder).into_iter().flatten().flatten();
        let inner = inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let inner: Vec<_> = inner.map(|entry| entry.path()).collect();
        found.extend(inner);
        next += 1;
    }
    found
}

/// Processes whose command line or working directory carries the mark.
fn processes(mark: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numeric = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    let mut found: Vec<_> = numeric
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let carries = line.contains(mark) || folder.to_string_lossy().contains(mark);
            carries.then(|| format!("{pid} {}", line.trim()))
        })
        .collect();
    found.sort();
    found
}

fn mounts(mark: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(mark)).map(str::to_owned).collect()
}

/// Cgroups at most four levels deep whose path carries the mark.
fn cgroups(mark: &str) -> Vec<String> {
    let mut found = vec![];
    search(Path::new("/sys/fs/cgroup"), mark, 5, &mut found);
    found.sort();
    found
}

fn search(folder: &Path, mark: &str, depth: usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(mark) {
            found.push(path.display().to_string());
        } else if depth > 0 {
            search(&path, mark, depth - 1, found);
        }
    }
}
