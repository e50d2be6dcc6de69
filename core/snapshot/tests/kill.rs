//! Kills a process in the midst of its work, again and again: what it acknowledged is there, and nothing is left over.
//!
//! The process is this test binary, run in a directory with a marker file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use kevel_contract::{
    Scope,
    snapshot::{Backend as _, Commit, Kind},
};
use kevel_model::{Code, Filters, Labels, Namespace};
use kevel_snapshot::{Snapshots, overlay};

const MARKER: &str = "work-here";

fn scope() -> Scope {
    Scope::new(Namespace::new("test").unwrap())
}

/// Opens the store once whoever had it before, which deletes in the background, let go of its database.
async fn open(root: &Path) -> Snapshots<overlay::Overlay> {
    let opened = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match overlay::open(root, overlay::Options::default(), false).await {
                Err(error) if error.code() == Code::Unavailable => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    });
    opened.await.expect("the database is closed with its last user")
}

/// Makes, commits and removes snapshots until it is killed, and says after each step what it has done.
#[tokio::test(flavor = "multi_thread")]
async fn works_until_killed() {
    if !Path::new(MARKER).exists() {
        return; // the test below runs this one in another process
    }
    let snapshots = open(Path::new("root")).await;
    let run = fs::read_to_string(MARKER).unwrap();
    let say = |what: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "done {what}").and_then(|()| out.flush()).unwrap();
    };
    let mut parent = String::new();
    for n in 0.. {
        let (key, name) = (format!("{run}-{n}-key"), format!("{run}-{n}"));
        let mounts = snapshots.prepare(&scope(), &key, &parent, Labels::new()).await.unwrap();
        let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
        fs::write(Path::new(upper.unwrap_or(&mounts[0].source)).join(&name), &name).unwrap();
        snapshots.commit(&scope(), &name, &key, Commit::default()).await.unwrap();
        say(format!("commit {name}"));
        if n % 3 == 2 {
            snapshots.remove(&scope(), &name).await.unwrap();
            say(format!("remove {name}"));
            parent.clear();
        } else {
            parent = name;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Whether each snapshot is there, as far as it was acknowledged.
    let mut said = BTreeMap::new();
    for run in 0..8 {
        fs::write(dir.path().join(MARKER), run.to_string()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "works_until_killed", "--nocapture"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut steps = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some((_, step)) = line.split_once("done ") else { continue };
            let (what, name) = step.split_once(' ').unwrap();
            said.insert(name.to_owned(), what == "commit");
            steps += 1;
            if steps == 5 + run * 3 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(steps >= 5, "the process worked");
        check(&dir.path().join("root"), &said).await;
    }
}

async fn check(root: &Path, said: &BTreeMap<String, bool>) {
    let snapshots = open(root).await;
    let infos = snapshots.list(&scope(), &Filters::default()).await.unwrap();
    let names: Vec<_> = infos.iter().map(|info| info.name.as_str()).collect();
    for (name, there) in said {
        // A removal may be done and not acknowledged any more.
        let may_be_removed = name.rsplit('-').next().is_some_and(|n| n.parse::<u32>().unwrap() % 3 == 2);
        assert!(names.contains(&name.as_str()) == *there || (*there && may_be_removed), "{name} in {names:?}");
    }
    for info in infos.iter().filter(|info| info.kind == Kind::Committed) {
        let view = format!("view-of-{}", info.name);
        let mounts = snapshots.view(&scope(), &view, &info.name, Labels::new()).await.unwrap();
        let files = match mounts[0].options.iter().find_map(|option| option.strip_prefix("lowerdir=")) {
            Some(lower) => lower.split(':').next().unwrap().to_owned(),
            None => mounts[0].source.clone(),
        };
        assert_eq!(fs::read_to_string(Path::new(&files).join(&info.name)).unwrap(), info.name);
        snapshots.remove(&scope(), &view).await.unwrap();
    }
    snapshots.cleanup(&scope()).await.unwrap();
    assert_eq!(fs::read_dir(root.join("snapshots")).unwrap().count(), infos.len(), "directories are left");
}
