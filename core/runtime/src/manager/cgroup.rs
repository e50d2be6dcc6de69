//! Ending a container without its shim: everything in its cgroup is killed, and goes on if it was frozen, since on version 1
//! nobody ends who is. A runtime that kills freezes first; one that is ended meanwhile leaves it so, and deletes it no more.

use std::{
    fs,
    io::{self, Write as _},
    path::{Component, Path, PathBuf},
};

use super::stray;

/// Where cgroup hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// A process may fork between the look at a cgroup and its end; so many looks are taken at most.
const LOOKS: usize = 16;

/// Kills every process in the cgroup of a container whose first process is `pid`, and in those below it. Blocks. Answers
/// whether there was such a cgroup: one of the container's own, which carries its id in its name. A process that has
/// ended, or whose number is somebody else's now, has none.
pub(super) fn kill(pid: u32, id: &str) -> bool {
    let Ok(table) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return false };
    let groups = groups(&table, id);
    for group in &groups {
        if let Err(error) = kill_group(group) {
            tracing::warn!(id, group = %group.display(), %error, "killing what is in a cgroup");
        }
    }
    groups.iter().for_each(|group| _ = thaw_group(group));
    !groups.is_empty()
}

/// Lets a container go on whose bundle says at which path its cgroup is; one of systemd's is left alone. Blocks. Answers
/// whether it was frozen.
pub(super) fn thaw(bundle: &Path) -> bool {
    let Some(path) = path(bundle) else { return false };
    let places = ["freezer", "", "unified"].map(|place| Path::new(ROOT).join(place).join(path.trim_start_matches('/')));
    places.iter().filter(|group| thaw_group(group)).count() > 0
}

fn path(bundle: &Path) -> Option<String> {
    let spec = fs::read(bundle.join("config.json")).ok()?;
    let spec: serde_json::Value = serde_json::from_slice(&spec).ok()?;
    let path = spec["linux"]["cgroupsPath"].as_str()?;
    let plain = Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (plain && path.len() > 1 && path.starts_with('/')).then(|| path.to_owned())
}

/// Answers whether it was frozen.
fn thaw_group(group: &Path) -> bool {
    let mut was = false;
    for (file, going) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let file = group.join(file);
        let Ok(state) = fs::read_to_string(&file) else { continue };
        if state.trim() == going {
            continue;
        }
        match fs::write(&file, going) {
            Ok(()) => was = true,
            Err(error) => tracing::warn!(file = %file.display(), %error, "thawing a cgroup"),
        }
    }
    was
}

/// The directories of the container's own cgroups, of every hierarchy that is mounted in its usual place.
fn groups(table: &str, id: &str) -> Vec<PathBuf> {
    let own = |path: &str| path.rsplit('/').next().is_some_and(|last| !id.is_empty() && last.contains(id));
    let group = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (controllers, path) = (fields.nth(1)?, fields.next()?);
        if !own(path) {
            return None;
        }
        let places = match controllers {
            "" => vec![PathBuf::from(ROOT), Path::new(ROOT).join("unified")],
            named => vec![Path::new(ROOT).join(named.trim_start_matches("name="))],
        };
        places.into_iter().map(|place| place.join(path.trim_start_matches('/'))).find(|dir| dir.is_dir())
    };
    table.lines().filter_map(group).collect()
}

fn kill_group(group: &Path) -> io::Result<()> {
    // Version 2 from Linux 5.14 on does it in one go, forks included.
    // Without making it: on version 1 that is refused in another way than what is not there.
    let kill = fs::OpenOptions::new().write(true).open(group.join("cgroup.kill"));
    match kill.and_then(|mut file| file.write_all(b"1")) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for _ in 0..LOOKS {
        let pids = processes(group)?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            stray::signal(pid, |_| true);
        }
    }
    Ok(())
}

/// Processes in a cgroup and those below it.
fn processes(group: &Path) -> io::Result<Vec<u32>> {
    let mut pids: Vec<u32> = match fs::read_to_string(group.join("cgroup.procs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text?.lines().filter_map(|line| line.parse().ok()).collect(),
    };
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes(&entry.path())?);
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cgroup_that_carries_the_id_is_the_containers() {
        let none = |table: &str, id: &str| assert_eq!(groups(table, id), Vec::<PathBuf>::new(), "{table} {id}");
        none("0::/\n", "c1");
        none("0::/system.slice/c1/other\n", "c1");
        none("3:memory:/not/mounted/anywhere/c1\n", "c1");
        none("garbage\n1:\n:::\n", "c1");
        none("0::/\n", "");
    }

    #[test]
    fn what_is_frozen_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let state = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        assert!(!thaw_group(dir.path()));
        for (file, frozen, going) in [("freezer.state", "FROZEN\n", "THAWED"), ("cgroup.freeze", "1\n", "0")] {
            state(file, &format!("{going}\n"));
            assert!(!thaw_group(dir.path()), "{file}");
            state(file, frozen);
            assert!(thaw_group(dir.path()) && !thaw_group(dir.path()), "{file}");
        }
    }

    #[test]
    fn only_a_plain_path_is_taken_from_a_bundle() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(path(dir.path()), None);
        for (given, want) in [
            ("/pods/c1", Some("/pods/c1")),
            ("/", None),
            ("", None),
            ("pods/c1", None),
            ("/a/../b", None),
            ("a.slice:cri:c1", None),
        ] {
            let spec = serde_json::json!({ "linux": { "cgroupsPath": given } });
            fs::write(dir.path().join("config.json"), spec.to_string()).unwrap();
            assert_eq!(path(dir.path()).as_deref(), want, "{given}");
        }
    }

    #[test]
    fn this_process_is_not_in_a_containers_cgroup() {
        assert!(!kill(std::process::id(), "no-container-is-called-this"));
        assert!(!kill(u32::MAX, "c1"));
    }
}
