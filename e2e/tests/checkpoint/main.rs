//! Checkpoint and restore: of tasks by containerd's `ctr`, of containers and pods by the CRI.
//!
//! Where CRIU works (in a VM with a kernel that it knows) memory is what comes back. Everywhere the same is done with a
//! runtime that stands in for CRIU, and with one that fails.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

mod counting;
mod setup;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use kevel_e2e::{find, patience, run, skip_without, until};
use kevel_proto::runtime::v1 as cri;
use tonic::Code;

use counting::Counting;
use setup::{COUNT, emulated, setup};

/// Whether CRIU works here; says so if it does not.
fn criu_works() -> bool {
    let checked = find("criu").and_then(|criu| run(&criu, &["check"])?.ok());
    checked.inspect_err(|error| eprintln!("criu: {}", error.root_cause())).is_ok()
}

#[test]
fn ctr_checkpoints_and_restores_without_criu() {
    let setup = emulated();
    setup.count_by_ctr("one");
    let node = &setup.node;
    node.ctr(&["containers", "checkpoint", "--task", "--rw", "--image", "one", "saved"]).unwrap();
    assert_eq!(setup.scratch(), 0);
    let blobs = node.ctr(&["content", "ls"]).unwrap();
    assert!(node.ctr(&["tasks", "ls"]).unwrap().contains("RUNNING"), "it goes on\n{blobs}");
    until("the container to go on", || setup.shown("one")).unwrap();
    setup.remove_by_ctr("one");

    node.ctr(&["containers", "restore", "--live", "--rw", "one", "saved"]).unwrap();
    assert!(setup.faults.noted().contains("restored 0"), "{}", setup.faults.noted());
    until("the restored container to count", || setup.shown("one")).unwrap();
    let work = node.path("root/io.containerd.runtime.v2.task/default/one");
    assert!(work.is_dir() && !work.join("restore").exists(), "the images are gone once it runs");
    setup.remove_by_ctr("one");

    // By a directory of the caller's, which the daemon leaves alone.
    setup.count_by_ctr("two");
    let images = node.path("images");
    let path = images.to_str().unwrap();
    node.ctr(&["tasks", "checkpoint", "--image-path", path, "two"]).unwrap();
    assert_eq!(fs::read_to_string(images.join("core-1.img")).unwrap(), "1\n");
    let relative = setup.refused(&["tasks", "checkpoint", "--image-path", "images", "two"]);
    assert!(relative.contains("options.image_path") && relative.contains("not an absolute path"), "{relative}");
    setup.remove_by_ctr("two");
    node.ctr(&["images", "rm", "--sync", "saved", setup.registry.reference("busybox")]).unwrap();
    let clean = || node.ctr(&["content", "ls", "-q"]).ok().filter(String::is_empty);
    until("nothing to keep what the checkpoint was made of", clean).unwrap();
    node.assert_no_leaks().unwrap();
}

#[test]
fn a_checkpoint_that_fails_or_lies_leaves_nothing() {
    let setup = emulated();
    setup.count_by_ctr("one");
    let node = &setup.node;
    let before = node.ctr(&["content", "ls", "-q"]).unwrap();
    setup.faults.set("half").unwrap();
    let error = setup.refused(&["containers", "checkpoint", "--task", "one", "failed"]);
    assert!(error.contains("half of it"), "{error}");
    setup.faults.unset("half");
    assert_eq!(setup.scratch(), 0);
    node.ctr(&["leases", "create", "--id", "last"]).unwrap();
    node.ctr(&["leases", "rm", "--sync", "last"]).unwrap(); // collects what ctr itself wrote before it failed
    assert_eq!(node.ctr(&["content", "ls", "-q"]).unwrap(), before);
    until("the container to go on", || setup.shown("one")).unwrap();

    // A link among images would be opened as root.
    setup.faults.set("hostile").unwrap();
    node.ctr(&["containers", "checkpoint", "--task", "--image", "one", "hostile"]).unwrap();
    setup.remove_by_ctr("one");
    let error = setup.refused(&["containers", "restore", "--live", "one", "hostile"]);
    assert!(error.contains("pages-1.img") && error.contains("neither a file nor a directory"), "{error}");
    assert_eq!(node.ctr(&["tasks", "ls", "-q"]).unwrap(), "");
    assert!(!setup.faults.noted().contains("restored"), "{}", setup.faults.noted());
    node.ctr(&["containers", "rm", "one"]).unwrap();
    node.assert_no_leaks().unwrap();
}

#[test]
fn ctr_restores_memory() {
    if skip_without("criu", criu_works()) {
        return;
    }
    let setup = setup();
    setup.count_by_ctr("one");
    let (_, word) = until("the container to count", || setup.shown("one").filter(|(shown, _)| *shown > 20)).unwrap();
    let node = &setup.node;
    node.ctr(&["containers", "checkpoint", "--task", "--image", "one", "saved"]).unwrap();
    let (saved, _) = until("the container to go on", || setup.shown("one")).unwrap();
    setup.remove_by_ctr("one");
    // Without its files: what it shows comes from its memory.
    node.ctr(&["containers", "restore", "--live", "one", "saved"]).unwrap();
    let (first, same) = until("the restored container to count", || setup.shown("one")).unwrap();
    eprintln!("saved at about {saved}, went on at {first}");
    assert!(first > 20 && same == word, "saved at about {saved} with {word}, went on at {first} with {same}");
    until("the restored container to go on", || setup.shown("one").filter(|(shown, _)| *shown > first)).unwrap();
    setup.remove_by_ctr("one");
    node.assert_no_leaks().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_becomes_an_archive_and_a_container_again() {
    let this = Counting::new(emulated()).await;
    let dir = this.outputs("archives");
    let archive = dir.join("one.tar");
    this.checkpoint(&archive, 0).await.unwrap();
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o7777, 0o600);
    let listed = run(Path::new("/bin/tar"), &["-tf", archive.to_str().unwrap()]).unwrap().ok().unwrap();
    for name in [
        "checkpoint/core-1.img",
        "config.dump",
        "spec.dump",
        "status.dump",
        "rootfs-diff.tar",
        "dump.log",
        "container.log",
    ] {
        assert!(listed.lines().any(|line| line == name), "{name} is not in\n{listed}");
    }
    let count = |point: &str| this.setup.faults.count(point);
    assert_eq!((count("runc-pause"), count("runc-checkpoint"), count("runc-resume")), (1, 1, 1));
    let shown = this.shows(&this.id, 1).await;
    this.shows(&this.id, shown + 1).await; // it goes on
    assert_eq!((this.left(), fs::read_dir(&dir).unwrap().count()), (Vec::new(), 1));

    let other = this.pods.run(this.pods.config("two"), "").await.unwrap();
    let id = this.pods.create(&other, "two", this.from(&archive)).await.unwrap();
    assert_eq!(this.pods.create(&other, "two", this.from(&archive)).await.unwrap(), id, "a retry finds it");
    let status = this.pods.status(&id).await.unwrap();
    assert_eq!(
        (status.state(), status.image_ref),
        (cri::ContainerState::ContainerCreated, this.pods.status(&this.id).await.unwrap().image_ref)
    );
    this.pods.start(&id, None).await.unwrap();
    assert!(this.setup.faults.noted().contains("restored 0"), "{}", this.setup.faults.noted());
    this.shows(&id, 1).await;
    this.end(&[&other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_a_container_again() {
    let this = Counting::new(emulated()).await;
    let dir = this.outputs("archives");
    let archive = dir.join("one.tar");
    this.checkpoint(&archive, 0).await.unwrap();
    let other = this.pods.run(this.pods.config("two"), "").await.unwrap();
    for (n, annotation) in
        ["io.kubernetes.cri-o.annotations.checkpoint.name", "org.criu.checkpoint.container.name"].iter().enumerate()
    {
        let name = this.image(&format!("good-{n}"), &archive, &format!("{annotation}=counter"));
        let mut config = this.from(Path::new(&name));
        config.metadata = Some(cri::ContainerMetadata { name: format!("counter-{n}"), attempt: 0 });
        let created = this.created(&other, &config).await.unwrap();
        let status = this.pods.status(&created).await.unwrap();
        assert_eq!(status.image_ref, this.pods.status(&this.id).await.unwrap().image_ref, "the image that it was of");
        // What it is restored from has been taken.
        this.remove_image(&name);
        this.pods.start(&created, None).await.unwrap();
        this.shows(&created, 1).await;
    }
    assert_eq!(this.setup.faults.noted().matches("restored 0").count(), 2, "{}", this.setup.faults.noted());

    // An image is what it says: files of an archive.
    this.setup.faults.set("hostile").unwrap();
    this.checkpoint(&dir.join("hostile.tar"), 0).await.unwrap();
    this.setup.faults.unset("hostile");
    fs::write(dir.join("noise"), "x").unwrap();
    let noise = dir.join("noise.tar");
    run(Path::new("/bin/tar"), &["-C", dir.to_str().unwrap(), "-cf", noise.to_str().unwrap(), "noise"])
        .unwrap()
        .ok()
        .unwrap();
    for (file, why) in [("hostile", "is neither a file nor a directory"), ("noise", "has no config.dump")] {
        let annotation = "io.kubernetes.cri-o.annotations.checkpoint.name=counter";
        let name = this.image(file, &dir.join(format!("{file}.tar")), annotation);
        let error = this.created(&other, &this.from(Path::new(&name))).await.unwrap_err();
        let said = error.message();
        assert!(said.contains("config.image.image: image") && said.contains(why), "{error:?}");
        assert_eq!(error.code(), Code::InvalidArgument);
        this.remove_image(&name);
    }
    // Without the annotation it is an image like any other.
    let name = this.image("plain", &archive, "checkpoint.test/other=counter");
    let created = this.created(&other, &this.from(Path::new(&name))).await.unwrap();
    let error = this.pods.start(&created, None).await.unwrap_err();
    assert!(!error.message().is_empty());
    assert_eq!(this.setup.faults.count("runc-restore"), 2);
    this.pods.remove_pod(&other).await.unwrap();
    this.remove_image(&name);
    this.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_half_written_goes_with_the_next_start() {
    let mut this = Counting::new(emulated()).await;
    let dir = this.outputs("archives");
    // What the archive is made of is larger than what is written before the daemon is killed.
    let fill = "dd if=/dev/zero of=/large bs=1M count=256 2>/dev/null && echo done";
    let request = cri::ExecSyncRequest {
        container_id: this.id.clone(),
        cmd: ["sh", "-c", fill].map(str::to_owned).to_vec(),
        timeout: 60,
    };
    assert_eq!(this.pods.runtime.clone().exec_sync(request).await.unwrap().into_inner().stdout, b"done\n");
    let parts = || fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let archive = dir.join("one.tar");
    let asked = this.checkpoint(&archive, 0);
    let begun = async {
        while parts().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = asked => panic!("{done:?}"),
        () = begun => {}
    }
    this.setup.node.kill().unwrap();
    let left = parts();
    assert!(left.len() == 1 && left[0] != archive, "{left:?}");
    this.launch().await;
    kevel_e2e::eventually("the half-written archive to go", async || parts().is_empty()).await;
    this.checkpoint(&archive, 0).await.unwrap();
    assert_eq!((this.left(), parts()), (Vec::new(), vec![archive]));
    this.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_cannot_be_leave_nothing() {
    let this = Counting::new(emulated()).await;
    let (dir, faults) = (this.outputs("archives"), &this.setup.faults);
    let archive = dir.join("one.tar");
    let refused = async |why: &str, code: Code, archive: &Path, timeout: i64| {
        let error = this.checkpoint(archive, timeout).await.unwrap_err();
        assert!(error.message().contains(why) && error.code() == code, "{error:?}");
        assert_eq!((this.left(), fs::read_dir(&dir).unwrap().count()), (Vec::new(), 0), "{why}");
    };
    // Before anything is changed.
    faults.set("criu-broken").unwrap();
    refused("criu/made.c:1): broken on purpose", Code::FailedPrecondition, &archive, 0).await;
    faults.unset("criu-broken");
    refused("location: ", Code::InvalidArgument, Path::new("relative.tar"), 0).await;
    refused("location: ", Code::InvalidArgument, &dir.join("../x.tar"), 0).await;
    refused("is not a directory", Code::FailedPrecondition, &dir.join("none/x.tar"), 0).await;
    refused("timeout: ", Code::InvalidArgument, &archive, -1).await;
    assert_eq!((faults.count("runc-pause"), faults.count("runc-checkpoint")), (0, 0));
    // While it is written.
    faults.set("half").unwrap();
    refused("Error (criu/mem.c:1): made up", Code::Unknown, &archive, 0).await;
    faults.unset("half");
    faults.fail("runc-pause").unwrap();
    refused("pausing container", Code::Unknown, &archive, 0).await;
    faults.release("runc-pause");
    faults.hold("runc-checkpoint").unwrap();
    refused("", Code::DeadlineExceeded, &archive, 1).await;
    kevel_e2e::eventually("what made the checkpoint to end", async || this.at_work().is_empty()).await;
    faults.release("runc-checkpoint");
    let shown = this.shows(&this.id, 1).await;
    this.shows(&this.id, shown + 1).await; // it goes on all the same

    // What is restored from must be what it says.
    this.checkpoint(&archive, 0).await.unwrap();
    let other = this.pods.run(this.pods.config("two"), "").await.unwrap();
    let refuses = async |name: &str, why: &str| {
        let error = this.pods.create(&other, "two", this.from(&dir.join(name))).await.unwrap_err();
        assert!(error.message().contains(why), "{name}: {error:?}");
    };
    refuses("none.tar", "config.image.image: ").await;
    symlink("one.tar", dir.join("link.tar")).unwrap();
    refuses("link.tar", "can't be restored from").await;
    faults.set("hostile").unwrap();
    this.checkpoint(&dir.join("hostile.tar"), 0).await.unwrap();
    refuses("hostile.tar", "is neither a file nor a directory").await;
    assert_eq!(this.setup.faults.count("runc-restore"), 0);
    this.end(&[&other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_saved_at_one_moment_and_restored() {
    let this = Counting::new(emulated()).await;
    let second = this.pods.create(&this.pod, "one", this.pods.container("second", COUNT)).await.unwrap();
    this.pods.start(&second, None).await.unwrap();
    let ids = [this.id.as_str(), second.as_str()];
    let (dir, long) = (this.outputs("pod"), Some(Duration::from_secs(60)));
    let refused = async |ids: &[&str], limit: Option<Duration>, why: &str| {
        let error = this.checkpoint_pod(ids, &dir, limit).await.unwrap_err();
        assert!(error.message().contains(why), "{error:?}");
        assert_eq!((this.left(), fs::read_dir(&dir).unwrap().count()), (Vec::new(), 0), "{why}");
    };
    refused(&ids, None, "no deadline").await;
    refused(&[], long, "container_ids: empty").await;
    refused(&[ids[0], ids[0]], long, "named twice").await;
    refused(&[ids[0], "none"], long, "container_ids[1]").await;
    this.setup.faults.set("half").unwrap();
    refused(&ids, long, "made up").await;
    this.setup.faults.unset("half");
    for id in ids {
        let shown = this.shows(id, 1).await;
        this.shows(id, shown + 1).await;
    }

    this.checkpoint_pod(&ids, &dir, long).await.unwrap();
    let noted = this.setup.faults.noted();
    let verbs: Vec<&str> = noted.lines().filter_map(|line| line.split(' ').next()).collect();
    let kept: Vec<&&str> = verbs
        .iter()
        .rev()
        .filter(|verb| ["runc-pause", "runc-checkpoint", "runc-resume"].contains(verb))
        .take(6)
        .collect();
    let order = ["runc-resume", "runc-resume", "runc-checkpoint", "runc-checkpoint", "runc-pause", "runc-pause"];
    assert!(kept.iter().map(|verb| **verb).eq(order), "{kept:?}");
    assert_eq!((this.left(), fs::read_dir(&dir).unwrap().count()), (Vec::new(), 3));
    let error = this.checkpoint_pod(&ids, &dir, long).await.unwrap_err();
    assert!(error.message().contains("is not empty"), "{error:?}");

    let configs = |names: &[&str]| names.iter().map(|name| this.pods.container(name, COUNT)).collect::<Vec<_>>();
    for (names, why) in [(&["counter"][..], "none for container"), (&["counter", "other"], "container_configs[1]")] {
        let error = this.restore_pod(&dir, "back", configs(names)).await.unwrap_err();
        assert!(error.message().contains(why), "{error:?}");
    }
    // One that fails late takes the pod with it.
    let archive =
        fs::read_dir(&dir).unwrap().flatten().find(|one| one.path().ends_with(format!("{second}.tar"))).unwrap();
    let whole = fs::read(archive.path()).unwrap();
    fs::write(archive.path(), &whole[..whole.len() / 3]).unwrap();
    this.restore_pod(&dir, "back", configs(&["counter", "second"])).await.unwrap_err();
    assert_eq!(this.pods.list().await.unwrap().len(), 1, "the pod went with it");
    fs::write(archive.path(), &whole).unwrap();

    let (pod, restored) = this.restore_pod(&dir, "back", configs(&["counter", "second"])).await.unwrap();
    let names: Vec<&str> = restored.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["counter", "second"]);
    for (_, id) in &restored {
        assert_eq!(this.pods.status(id).await.unwrap().state(), cri::ContainerState::ContainerCreated);
        this.pods.start(id, None).await.unwrap();
        this.shows(id, 1).await;
    }
    this.end(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_leaves_nobody_paused() {
    let mut this = Counting::new(emulated()).await;
    let archive = this.outputs("archives").join("one.tar");
    this.setup.faults.hold("runc-checkpoint").unwrap();
    let shown = this.shows(&this.id, 1).await;
    let asked = this.checkpoint(&archive, 0);
    let dies = async {
        let at = this.setup.faults.path("at-runc-checkpoint");
        kevel_e2e::eventually("the checkpoint to begin", async || at.exists()).await;
    };
    tokio::select! {
        done = asked => panic!("{done:?}"),
        () = dies => {}
    }
    this.setup.node.kill().unwrap();
    assert!(!this.at_work().is_empty());
    this.launch().await;
    this.shows(&this.id, shown + 5).await;
    assert!(!archive.exists());
    kevel_e2e::eventually("what made the checkpoint to end", async || this.at_work().is_empty()).await;
    this.setup.faults.release("runc-checkpoint");
    kevel_e2e::eventually("the note to go", async || !this.left().iter().any(|left| left.ends_with("frozen"))).await;
    this.checkpoint(&archive, 0).await.unwrap();
    this.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_on_where_it_was() {
    if skip_without("criu", criu_works()) {
        return;
    }
    let this = Counting::new(setup()).await;
    let (_, word) = this.says(&this.id, 20).await;
    let (archive, dir) = (this.outputs("archives").join("one.tar"), this.outputs("pod"));
    this.checkpoint(&archive, 0).await.unwrap();
    let saved = this.shows(&this.id, 20).await;
    let goes_on = async |id: &str| {
        this.pods.start(id, None).await.unwrap();
        let (first, same) = this.says(id, 20).await;
        eprintln!("saved the first time at about {saved}, went on at {first}");
        assert_eq!(same, word, "it was started anew");
        this.says(id, first + 1).await;
        let table = fs::read_to_string(format!("/proc/{}/cgroup", this.pid(id).await)).unwrap();
        let is_own = |line: &str| line.ends_with(&format!("/{id}"));
        assert!(table.lines().filter(|line| line.starts_with("0::")).all(is_own), "it is elsewhere: {table}");
    };
    let other = this.pods.run(this.pods.config("two"), "").await.unwrap();
    let id = this.pods.create(&other, "two", this.from(&archive)).await.unwrap();
    goes_on(&id).await;

    // A pod that is gone comes back under its name; the first one counted on after its container had been saved.
    let (more, _) = this.says(&this.id, saved + 10).await;
    this.checkpoint_pod(&[&this.id], &dir, Some(patience(60))).await.unwrap();
    this.pods.remove_pod(&this.pod).await.unwrap();
    let (back, restored) = this.restore_pod(&dir, "one", vec![this.pods.container("counter", COUNT)]).await.unwrap();
    assert_ne!(back, this.pod);
    goes_on(&restored[0].1).await;
    assert!(this.shows(&restored[0].1, 1).await > more, "the pod is from before {more}");
    this.end(&[&other, &back]).await;
}
