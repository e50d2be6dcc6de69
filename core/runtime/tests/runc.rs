//! Tasks on the real `containerd-shim-runc-v2`, on our own shim, and runc, with a root file system of one static busybox.
//!
//! Needs root and, in `PATH`: `containerd-shim-runc-v2` (each one that is found is tested: version 3 of the task API
//! came with containerd 2), `runc`, and a static `busybox`.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod harness;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use harness::{Node, Records, assert_no_leaks, create, in_path, until};
use kevel_contract::task::{Exec, Kill, State, Stdio};
use kevel_model::{Any, Code, Filters};
use kevel_runtime::{Role, Timeouts};
use serde_json::{Value, json};

const RUNC: &str = "io.containerd.runc.v2";
const OURS: &str = "io.containerd.kevel.v1";

/// Directories with a shim, and the runtime that it is for: containerd's, once per different binary, and our own.
fn shims() -> Vec<(PathBuf, &'static str)> {
    let mut dirs: Vec<(u64, PathBuf)> = Vec::new();
    for path in in_path("containerd-shim-runc-v2") {
        let size = path.metadata().unwrap().len();
        if dirs.iter().all(|(other, _)| *other != size) {
            dirs.push((size, path.parent().unwrap().to_owned()));
        }
    }
    assert!(!dirs.is_empty(), "containerd-shim-runc-v2 is not in PATH; install containerd");
    let test = std::env::current_exe().unwrap();
    let own = test.parent().unwrap().parent().unwrap().to_owned();
    assert!(own.join("containerd-shim-kevel-v1").exists(), "our shim is not built; cargo build --workspace --bins");
    dirs.into_iter().map(|(_, dir)| (dir, RUNC)).chain([(own, OURS)]).collect()
}

/// A root file system with busybox as every program that the tests run.
fn rootfs(base: &Path) -> PathBuf {
    let busybox = in_path("busybox").into_iter().next().expect("busybox is not in PATH; install busybox-static");
    let root = base.join("img");
    for dir in ["bin", "proc", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "true"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    root
}

fn spec(id: &str, script: &str, annotations: Value) -> Value {
    let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"].iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": process(script),
        "root": { "path": "rootfs" },
        "hostname": id,
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "annotations": annotations,
        "linux": { "namespaces": namespaces, "cgroupsPath": format!("/kevel-test-{id}") },
    })
}

fn process(script: &str) -> Value {
    json!({
        "user": { "uid": 0, "gid": 0 },
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
    })
}

/// An id that no other run uses: it names cgroups.
fn id(name: &str, n: usize) -> String {
    format!("{name}-{}-{n}", std::process::id())
}

fn kill(id: &str, exec_id: &str, signal: u32) -> Kill {
    Kill { container_id: id.into(), exec_id: exec_id.into(), signal, all: false }
}

/// The file by which a container is frozen, and what says so.
fn freezer(id: &str) -> (PathBuf, &'static str) {
    let group = |place: &str| Path::new("/sys/fs/cgroup").join(place).join(format!("kevel-test-{id}"));
    match group("freezer").join("freezer.state") {
        file if file.exists() => (file, "FROZEN"),
        _ => (group("").join("cgroup.freeze"), "1"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_ended_is_deleted_frozen_or_not() {
    for (n, (dir, runtime)) in shims().into_iter().enumerate() {
        eprintln!("with {dir:?}");
        let base = tempfile::tempdir().unwrap();
        let (id, root) = (id("frozen", n), rootfs(base.path()));
        let node = Node::start(base.path(), &[dir], Timeouts::default()).await;
        let (tasks, scope) = (&node.tasks, &node.scope);
        node.record(&id, runtime, "", spec(&id, "exec sleep 1000", json!({}))).await;
        tasks.create(scope, create(&id, Some(&root))).await.unwrap_or_else(|e| panic!("{}", e.chain()));
        tasks.start(scope, &id, "").await.unwrap();

        tasks.pause(scope, &id).await.unwrap();
        tasks.delete(scope, &id).await.unwrap_err();
        assert_eq!(tasks.get(scope, &id, "").await.unwrap().state, State::Paused, "what somebody paused stays so");
        tasks.resume(scope, &id).await.unwrap();

        tasks.kill(scope, kill(&id, "", 9)).await.unwrap();
        assert_eq!(tasks.wait(scope, &id, "").await.unwrap().status, 137);
        // As a runtime leaves it that is ended in the middle of a kill.
        let (file, frozen) = freezer(&id);
        fs::write(&file, frozen).unwrap();
        assert_eq!(tasks.delete(scope, &id).await.unwrap_or_else(|e| panic!("{}", e.chain())).exit.status, 137);
        assert!(!file.exists(), "{file:?} is left");
        node.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_lives_and_dies() {
    for (n, (dir, runtime)) in shims().into_iter().enumerate() {
        eprintln!("with {dir:?}");
        let base = tempfile::tempdir().unwrap();
        let (id, root) = (id("life", n), rootfs(base.path()));
        let node = Node::start(base.path(), &[dir], Timeouts::default()).await;
        let (tasks, scope) = (&node.tasks, &node.scope);
        node.record(&id, runtime, "", spec(&id, "trap 'exit 7' TERM; while :; do sleep 0.1; done", json!({}))).await;

        let pid = tasks.create(scope, create(&id, Some(&root))).await.unwrap_or_else(|e| panic!("{}", e.chain()));
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        assert_eq!(tasks.get(scope, &id, "").await.unwrap().state, State::Created);
        assert_eq!(tasks.create(scope, create(&id, None)).await.unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(tasks.start(scope, &id, "").await.unwrap(), pid);
        let process = tasks.get(scope, &id, "").await.unwrap();
        assert_eq!((process.state, process.pid, process.id.as_str()), (State::Running, pid, id.as_str()));
        let shim = node.shims.get(&scope.namespace, &id, Role::Task).await.unwrap();
        assert!(shim.pid().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists()));

        let spec = Any::new(kevel_proto::any::PROCESS, serde_json::to_vec(&self::process("exit 3")).unwrap());
        let exec = Exec { container_id: id.clone(), exec_id: "x1".into(), stdio: Stdio::default(), spec: Some(spec) };
        tasks.exec(scope, exec).await.unwrap();
        assert_ne!(tasks.start(scope, &id, "x1").await.unwrap(), 0);
        assert_eq!(tasks.wait(scope, &id, "x1").await.unwrap().status, 3);
        assert_eq!(tasks.delete_process(scope, &id, "x1").await.unwrap().exit.status, 3);

        assert!(tasks.pids(scope, &id).await.unwrap().iter().any(|process| process.pid == pid));
        let metrics = tasks.metrics(scope, &Filters::default()).await.unwrap();
        assert!(metrics[0].data.as_ref().unwrap().type_name().starts_with("io.containerd.cgroups."));
        assert_eq!(tasks.list(scope, &Filters::default()).await.unwrap().len(), 1);
        tasks.pause(scope, &id).await.unwrap();
        assert_eq!(tasks.get(scope, &id, "").await.unwrap().state, State::Paused);
        tasks.resume(scope, &id).await.unwrap();
        let error = tasks.delete(scope, &id).await.unwrap_err();
        assert!(error.chain().contains("running"), "a running task stays: {}", error.chain());

        tasks.kill(scope, kill(&id, "", 15)).await.unwrap();
        assert_eq!(tasks.wait(scope, &id, "").await.unwrap().status, 7);
        assert_eq!(tasks.get(scope, &id, "").await.unwrap().state, State::Stopped);
        let deleted = tasks.delete(scope, &id).await.unwrap();
        assert_eq!((deleted.exit.status, deleted.pid), (7, pid));
        assert_eq!(tasks.delete(scope, &id).await.unwrap(), deleted, "a retry answers the same");
        assert_eq!(tasks.get(scope, &id, "").await.unwrap_err().code(), Code::NotFound);

        let exec = ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"];
        let pause = ["/tasks/paused", "/tasks/resumed"];
        let want = [&["/tasks/create", "/tasks/start"], &exec[..], &pause, &["/tasks/exit", "/tasks/delete"]].concat();
        // runc shims differ in whether deleting an exec is an event.
        let seen = || {
            let topics = node.bus.topics(&id);
            topics.iter().filter(|topic| *topic != "/tasks/delete").count() == want.len() - 1
        };
        until(seen, || format!("want {want:?}, have {:?}", node.bus.topics(&id))).await;
        node.assert_clean();
        assert_no_leaks(base.path(), &id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_outlive_the_daemon() {
    for (n, (dir, runtime)) in shims().into_iter().enumerate() {
        let base = tempfile::tempdir().unwrap();
        let (running, ended, root) = (id("stay", n), id("went", n), rootfs(base.path()));
        let records = Records::default();
        let node =
            Node::start_with(base.path(), std::slice::from_ref(&dir), Timeouts::default(), records.clone()).await;
        for (id, script) in [(&running, "while :; do sleep 0.1; done"), (&ended, "exit 5")] {
            node.record(id, runtime, "", spec(id, script, json!({}))).await;
            node.tasks.create(&node.scope, create(id, Some(&root))).await.unwrap_or_else(|e| panic!("{}", e.chain()));
            node.tasks.start(&node.scope, id, "").await.unwrap();
        }
        node.tasks.wait(&node.scope, &ended, "").await.unwrap();
        let pid = node.tasks.get(&node.scope, &running, "").await.unwrap().pid;
        drop(node);

        let node = Node::start_with(base.path(), &[dir], Timeouts::default(), records).await;
        let (tasks, scope) = (&node.tasks, &node.scope);
        let process = tasks.get(scope, &running, "").await.unwrap();
        assert_eq!((process.state, process.pid), (State::Running, pid));
        assert_eq!(tasks.wait(scope, &ended, "").await.unwrap().status, 5);
        tasks.kill(scope, kill(&running, "", 9)).await.unwrap();
        assert_eq!(tasks.wait(scope, &running, "").await.unwrap().status, 137);
        for id in [&running, &ended] {
            tasks.delete(scope, id).await.unwrap();
        }
        node.assert_clean();
        assert_no_leaks(base.path(), &ended).await;
        assert_no_leaks(base.path(), &running).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_is_killed_leaves_nothing() {
    for (n, (dir, runtime)) in shims().into_iter().enumerate() {
        let base = tempfile::tempdir().unwrap();
        let (id, root) = (id("kill", n), rootfs(base.path()));
        let node = Node::start(base.path(), &[dir], Timeouts::default()).await;
        let (tasks, scope) = (&node.tasks, &node.scope);
        node.record(&id, runtime, "", spec(&id, "while :; do sleep 0.1; done", json!({}))).await;
        tasks.create(scope, create(&id, Some(&root))).await.unwrap_or_else(|e| panic!("{}", e.chain()));
        tasks.start(scope, &id, "").await.unwrap();
        // A shim that is killed sends no more of what it has answered.
        node.bus.expect(&id, &["/tasks/create", "/tasks/start"]).await;
        let pid = tasks.get(scope, &id, "").await.unwrap().pid;
        let shim = node.shims.get(&scope.namespace, &id, Role::Task).await.unwrap().pid().unwrap();
        let (waiting, namespace) = (tasks.clone(), scope.clone());
        let waited = id.clone();
        let wait = tokio::spawn(async move { waiting.wait(&namespace, &waited, "").await });

        let shim = rustix::process::Pid::from_raw(shim.try_into().unwrap()).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
        assert_eq!(wait.await.unwrap().unwrap().status, 137);
        node.bus.expect(&id, &["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]).await;
        assert_eq!(tasks.kill(scope, kill(&id, "", 9)).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(tasks.delete(scope, &id).await.unwrap().exit.status, 137);
        let gone = || !Path::new(&format!("/proc/{pid}/ns/pid")).exists();
        until(gone, || format!("process {pid} of a dead shim lives")).await;
        node.assert_clean();
        assert_no_leaks(base.path(), &id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_containers_of_a_sandbox_share_a_shim() {
    for (n, (dir, runtime)) in shims().into_iter().enumerate() {
        let base = tempfile::tempdir().unwrap();
        let (pod, one, root) = (id("pod", n), id("one", n), rootfs(base.path()));
        let node = Node::start(base.path(), &[dir], Timeouts::default()).await;
        let (tasks, scope) = (&node.tasks, &node.scope);
        let script = "while :; do sleep 0.1; done";
        let group = json!({ "io.kubernetes.cri.sandbox-id": pod });
        node.record(&pod, runtime, "", spec(&pod, script, group.clone())).await;
        node.record(&one, runtime, &pod, spec(&one, script, group)).await;
        for id in [&pod, &one] {
            tasks.create(scope, create(id, Some(&root))).await.unwrap_or_else(|e| panic!("{}", e.chain()));
            tasks.start(scope, id, "").await.unwrap();
        }
        let shim = async |id: &str| node.shims.get(&scope.namespace, id, Role::Task).await.unwrap();
        assert_eq!(shim(&pod).await.bootstrap.address, shim(&one).await.bootstrap.address);
        assert_eq!(fs::read_to_string(node.bundle(&one).join("sandbox")).unwrap(), pod);
        // The sandbox's own container first: the shim has to stay for the other.
        for id in [&pod, &one] {
            tasks.kill(scope, kill(id, "", 9)).await.unwrap();
            tasks.wait(scope, id, "").await.unwrap();
            assert_eq!(tasks.delete(scope, id).await.unwrap().exit.status, 137);
        }
        node.assert_clean();
        assert_no_leaks(base.path(), &pod).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_cannot_be_created_leaves_nothing() {
    for (n, (dir, runtime)) in shims().into_iter().enumerate() {
        let base = tempfile::tempdir().unwrap();
        let (id, root) = (id("fail", n), rootfs(base.path()));
        let node = Node::start(base.path(), &[dir], Timeouts::default()).await;
        let mut spec = spec(&id, "true", json!({}));
        spec["process"]["args"] = json!(["/bin/nothing-of-that-name"]);
        node.record(&id, runtime, "", spec).await;
        let error = node.tasks.create(&node.scope, create(&id, Some(&root))).await.unwrap_err();
        assert!(error.chain().contains("nothing-of-that-name"), "{}", error.chain());
        node.assert_clean();
        assert_no_leaks(base.path(), &id).await;
    }
}

#[tokio::test]
async fn runtimes_tell_what_they_can() {
    let base = tempfile::tempdir().unwrap();
    let mut told = 0;
    for (dir, runtime) in shims() {
        let node = Node::start(base.path(), std::slice::from_ref(&dir), Timeouts::default()).await;
        match node.shims.runtime_info(runtime, None).await {
            Ok(info) => {
                assert_eq!(info.name, runtime);
                assert!(info.version.len() > 1);
                told += 1;
            }
            Err(error) => eprintln!("{dir:?} is too old for -info: {error}"),
        }
    }
    assert!(told > 0, "no shim of containerd 2 in PATH");
}
