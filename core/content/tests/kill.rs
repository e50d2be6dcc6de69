//! Kills a process in the midst of writing, again and again: every blob that it acknowledged is there and whole, and
//! what it had not finished can be resumed.
//!
//! The process is this test binary, run in a directory with a marker file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use kevel_content::LocalStore;
use kevel_contract::{
    Scope,
    call::Target,
    content::{Begin, Commit, ContentStore},
};
use kevel_model::{Digest, Filters, Namespace};

const MARKER: &str = "work-here";

fn scope() -> Scope {
    Scope::new(Namespace::new("test").unwrap())
}

async fn open(root: &Path) -> ContentStore {
    ContentStore::new(Target::local("local"), LocalStore::open(root).await.unwrap())
}

/// The data of the blob `name`.
fn data(name: &str) -> Bytes {
    name.as_bytes().iter().copied().cycle().take(300_000).collect()
}

fn begin(name: &str) -> Begin {
    Begin { reference: name.to_owned(), ..Begin::default() }
}

/// Writes blobs, two at a time, until it is killed, and says which are committed.
#[tokio::test(flavor = "multi_thread")]
async fn works_until_killed() {
    if !Path::new(MARKER).exists() {
        return; // the test below runs this one in another process
    }
    let run = fs::read_to_string(MARKER).unwrap();
    let store = open(Path::new("root")).await;
    let writer = async |writer: usize| {
        for n in 0.. {
            let name = format!("{run}-{writer}-{n}");
            let mut ingest = store.begin(&scope(), begin(&name)).await.unwrap();
            for piece in data(&name).chunks(50_000) {
                ingest.write(Bytes::copy_from_slice(piece)).await.unwrap();
                ingest.digest().await.unwrap(); // has it written
            }
            ingest.commit(Commit::default()).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "done {name}").and_then(|()| out.flush()).unwrap();
        }
    };
    tokio::join!(writer(1), writer(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = vec![];
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
            let Some((_, name)) = line.split_once("done ") else { continue };
            said.push(name.to_owned());
            steps += 1;
            if steps == 3 + run {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(steps >= 3, "the process worked");
        check(&dir.path().join("root"), &said).await;
    }
}

async fn check(root: &Path, said: &[String]) {
    let store = open(root).await;
    for name in said {
        assert_eq!(store.read(&scope(), &Digest::sha256(&data(name)), 1 << 20).await.unwrap(), data(name), "{name}");
    }
    // Also what was not acknowledged is whole, or no blob.
    for info in store.list(&scope(), &Filters::default()).await.unwrap() {
        let blob = store.read(&scope(), &info.digest, 1 << 20).await.unwrap();
        assert_eq!(Digest::sha256(&blob), info.digest);
    }
    for status in store.statuses(&scope(), &Filters::default()).await.unwrap() {
        let data = data(&status.reference);
        let mut ingest = store.begin(&scope(), begin(&status.reference)).await.unwrap();
        let written = usize::try_from(ingest.status().offset).unwrap();
        ingest.write(data.slice(written..)).await.unwrap();
        assert_eq!(ingest.commit(Commit::default()).await.unwrap(), Digest::sha256(&data), "{}", status.reference);
    }
}
