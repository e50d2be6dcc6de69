//! Both snapshotters against the conformance suite, as root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use kevel_contract::{
    call::Target,
    snapshot::{Snapshotter, suite},
};
use kevel_model::Mount;
use kevel_snapshot::{native, overlay};

/// Whether the tests can run; says why not.
fn can_mount() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("skipped: mounting needs root");
    }
    root
}

fn mounter(temp: PathBuf) -> impl Fn(&[Mount], suite::Look<'_>) {
    move |mounts: &[Mount], work: suite::Look<'_>| {
        let done = kevel_mount::with_temp_mount(&temp, mounts, |path| {
            work(path);
            Ok::<_, kevel_mount::Error>(())
        });
        done.unwrap();
    }
}

async fn overlay_in(dir: &Path) -> Snapshotter {
    let options = overlay::Options { rebase: true, ..overlay::Options::default() };
    Snapshotter::new(Target::local("overlayfs"), overlay::open(dir, options, false).await.unwrap())
}

fn overlay_works() -> bool {
    let dir = tempfile::tempdir().unwrap();
    match overlay::supported(dir.path()) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overlayfs_conforms() {
    if !can_mount() || !overlay_works() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let factory = || async {
        let dir = tempfile::tempdir().unwrap();
        (overlay_in(dir.path()).await, dir)
    };
    suite::run(factory, &mounter(temp.path().into())).await;
    suite::run_rebase(factory, &mounter(temp.path().into())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_conforms() {
    if !can_mount() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let factory = || async {
        let dir = tempfile::tempdir().unwrap();
        (Snapshotter::new(Target::local("native"), native::open(dir.path(), false).await.unwrap()), dir)
    };
    suite::run(factory, &mounter(temp.path().into())).await;
}
