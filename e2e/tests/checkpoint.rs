//! Checkpoint and restore: of tasks by containerd's `ctr`, of containers and pods by the CRI.
//!
//! Where CRIU works (in a VM with a kernel that it knows) memory is what comes back. Everywhere the same is done with a
//! runtime that stands in for CRIU, and with one that fails.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use kevel_e2e::{Faults, Node, NodeOptions, Registry, ctr, find, run, until};

/// Counts in memory, and shows how far it is. Started anew it would begin at 1.
const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n >/shown; sleep 0.1; done";

/// Whether CRIU works here; says so if it does not.
fn criu_works() -> bool {
    let Ok(criu) = find("criu") else {
        eprintln!("SKIPPED: criu is not here");
        return false;
    };
    let checked = run(&criu, &["check"]).unwrap();
    if checked.code != 0 {
        eprintln!("SKIPPED: criu does not work with this kernel: {}", checked.stderr.trim());
    }
    checked.code == 0
}

struct Setup {
    registry: Registry,
    node: Node,
    faults: Faults,
}

fn setup() -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let faults = Faults::new().unwrap();
    let options = NodeOptions {
        hosts_dir: registry.hosts_dir().to_owned(),
        sandbox_image: registry.reference("pause").to_owned(),
        ..NodeOptions::default()
    };
    let mut node = faults.node(options, "", "").unwrap();
    node.launch().unwrap();
    Setup { registry, node, faults }
}

impl Setup {
    /// A container that counts, run by `ctr` with the runtime of the faults.
    fn count_by_ctr(&self, id: &str) {
        let (hosts, image) = (self.registry.hosts_dir(), self.registry.reference("busybox"));
        self.node.ctr(&["images", "pull", "--local", "--hosts-dir", hosts, image]).unwrap();
        let (group, runc) = (format!("/{}", self.node.mark()), self.faults.path("bin/runc"));
        let own =
            ["--runc-binary", runc.to_str().unwrap(), "--runc-root", &self.faults.path("runc").display().to_string()]
                .map(str::to_owned);
        let own = own.each_ref().map(String::as_str);
        let run = ["run", "-d", "--null-io", "--cgroup", &group];
        self.node.ctr(&[&run[..], &own, &[image, id, "sh", "-c", COUNT]].concat()).unwrap();
    }

    /// How far a container of `ctr` has counted.
    fn shown(&self, id: &str) -> Option<u64> {
        let said = self.node.ctr(&["tasks", "exec", "--exec-id", "look", id, "cat", "/shown"]).ok()?;
        said.trim().parse().ok()
    }

    fn remove_by_ctr(&self, id: &str) {
        self.node.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]).unwrap();
        until("the task to stop", || {
            let list = self.node.ctr(&["tasks", "ls"]).ok()?;
            list.lines().any(|line| line.starts_with(id) && line.ends_with("STOPPED")).then_some(())
        })
        .unwrap();
        self.node.ctr(&["tasks", "rm", id]).ok(); // its exit code is the task's
        self.node.ctr(&["containers", "rm", id]).unwrap();
    }

    /// What `ctr`'s failure was.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = ctr(&self.node.socket(), arguments).unwrap();
        assert_ne!(output.code, 0, "{arguments:?} succeeded: {output:?}");
        output.stderr
    }

    /// Scratch space of the task service that is in use.
    fn scratch(&self) -> usize {
        let dir = self.node.path("root/io.containerd.runtime.v2.task/.checkpoints");
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    }
}

#[test]
fn ctr_checkpoints_and_restores_without_criu() {
    let setup = setup();
    setup.faults.emulate_criu().unwrap();
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
    assert_eq!(std::fs::read_to_string(images.join("core-1.img")).unwrap(), "1\n");
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
    let setup = setup();
    setup.faults.emulate_criu().unwrap();
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
    if !criu_works() {
        return;
    }
    let setup = setup();
    setup.count_by_ctr("one");
    until("the container to count", || setup.shown("one").filter(|shown| *shown > 20)).unwrap();
    let node = &setup.node;
    node.ctr(&["containers", "checkpoint", "--task", "--image", "one", "saved"]).unwrap();
    let saved = setup.shown("one").unwrap();
    setup.remove_by_ctr("one");
    // Without its files: what it shows comes from its memory.
    node.ctr(&["containers", "restore", "--live", "one", "saved"]).unwrap();
    let first = until("the restored container to count", || setup.shown("one")).unwrap();
    eprintln!("saved at about {saved}, went on at {first}");
    assert!(first > 20 && first <= saved + 100, "saved at about {saved}, went on at {first}");
    until("the restored container to go on", || setup.shown("one").filter(|shown| *shown > first)).unwrap();
    setup.remove_by_ctr("one");
    node.assert_no_leaks().unwrap();
}
