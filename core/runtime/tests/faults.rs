//! What happens around shims that are old, odd, slow or dead, shown with a shim made for it (`examples/fake-shim.rs`).
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod harness;

use std::{fs, path::Path, time::Duration};

use harness::{Node, Records, assert_no_leaks, create, shims, until};
use kevel_contract::{
    call::Target,
    sandbox::{self, NOT_READY, READY, Sandbox, SandboxController},
    task::{Kill, State},
};
use kevel_model::{Code, Filters};
use kevel_runtime::{Role, ShimController, Timeouts};
use serde_json::json;

fn timeouts() -> Timeouts {
    let limit = Duration::from_secs(2);
    Timeouts {
        start: limit,
        quick: limit,
        kill: limit,
        end: limit,
        work: Duration::from_secs(5),
        ..Timeouts::default()
    }
}

async fn node(base: &Path, modes: &[&str]) -> Node {
    Node::start(base, &[shims(base, modes)], timeouts()).await
}

/// Records a container and creates its task.
async fn make(node: &Node, id: &str, mode: &str, sandbox: &str) -> kevel_model::Result<u32> {
    node.record(id, &format!("io.containerd.{mode}.v1"), sandbox, json!({})).await;
    node.tasks.create(&node.scope, create(id, None)).await
}

fn kill(id: &str) -> Kill {
    Kill { container_id: id.into(), signal: 9, ..Kill::default() }
}

async fn end(node: &Node, id: &str) {
    node.tasks.kill(&node.scope, kill(id)).await.unwrap();
    assert_eq!(node.tasks.wait(&node.scope, id, "").await.unwrap().status, 137);
    assert_eq!(node.tasks.delete(&node.scope, id).await.unwrap().exit.status, 137);
}

#[tokio::test]
async fn shims_of_every_age_are_understood() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["ok", "json", "plain", "downgrade"]).await;
    for (mode, version) in [("ok", 3), ("json", 2), ("plain", 2), ("downgrade", 2)] {
        make(&node, mode, mode, "").await.unwrap_or_else(|error| panic!("{mode}: {}", error.chain()));
        let shim = node.shims.get(&node.scope.namespace, mode, Role::Task).await.unwrap();
        assert_eq!(shim.version(), version, "{mode}");
        assert_eq!(node.tasks.start(&node.scope, mode, "").await.unwrap(), 42);
        end(&node, mode).await;
    }
    node.assert_clean();
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}

#[tokio::test]
async fn shims_that_do_not_start_leave_nothing() {
    let base = tempfile::tempdir().unwrap();
    let modes = ["fails", "hangs", "garbage", "future", "nobody", "refuses"];
    let node = node(base.path(), &modes).await;
    for (mode, code, says) in [
        ("fails", Code::Unknown, "cannot start today"),
        ("hangs", Code::DeadlineExceeded, "did not end within"),
        ("garbage", Code::Internal, "neither a protobuf message"),
        ("future", Code::Internal, "version 4"),
        ("nobody", Code::Unavailable, "connecting to the shim"),
        ("refuses", Code::FailedPrecondition, "not this one"),
        ("missing", Code::NotFound, "containerd-shim-missing-v1"),
    ] {
        let error = make(&node, mode, mode, "").await.unwrap_err();
        assert_eq!(error.code(), code, "{mode}: {}", error.chain());
        assert!(error.chain().contains(says), "{mode}: {}", error.chain());
        assert!(node.tasks.get(&node.scope, mode, "").await.unwrap_err().is_not_found());
        node.assert_clean_but(&["deleted"]);
        assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
    }
    for id in ["", "..", "a/b"] {
        assert_eq!(make(&node, id, "ok", "").await.unwrap_err().code(), Code::InvalidArgument, "{id:?}");
    }
}

/// gVisor's runtime, whose start has failed: it can neither be killed nor deleted.
#[tokio::test]
async fn what_was_never_started_is_removed_whatever_its_runtime_says() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["stuck"]).await;
    make(&node, "c1", "stuck", "").await.unwrap();
    node.tasks.kill(&node.scope, kill("c1")).await.unwrap_err();
    assert_eq!(node.tasks.delete(&node.scope, "c1").await.unwrap().exit.status, 137);
    node.bus.expect("c1", &["/tasks/exit", "/tasks/delete"]).await;
    node.assert_clean_but(&["deleted"]);
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}

#[tokio::test]
async fn a_shim_that_dies_in_create_is_cleaned_up_after() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["dies"]).await;
    assert_eq!(make(&node, "c1", "dies", "").await.unwrap_err().code(), Code::NotFound);
    node.bus.expect("c1", &["/tasks/exit", "/tasks/delete"]).await;
    node.assert_clean_but(&["deleted"]);
    assert!(make(&node, "c1", "dies", "").await.is_err(), "the id can be used again");
}

#[tokio::test]
async fn a_shim_that_crashes_ends_its_task_once() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["crash"]).await;
    make(&node, "c1", "crash", "").await.unwrap();
    let wait = tokio::spawn({
        let (tasks, scope) = (node.tasks.clone(), node.scope.clone());
        async move { tasks.wait(&scope, "c1", "").await }
    });
    assert_eq!(node.tasks.kill(&node.scope, kill("c1")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(wait.await.unwrap().unwrap().status, 137);
    let deleted = node.tasks.delete(&node.scope, "c1").await.unwrap();
    assert_eq!((deleted.exit.status, deleted.pid), (137, 42));
    assert_eq!(node.tasks.delete(&node.scope, "c1").await.unwrap(), deleted);
    node.bus.expect("c1", &["/tasks/exit", "/tasks/delete"]).await;
    node.assert_clean_but(&["deleted"]);
    assert!(!base.path().join("s/c1.sock").exists(), "the socket of a dead shim is left");
}

/// Real shims answer before they have sent what they report, and drop it when they shut down.
#[tokio::test]
async fn a_shim_is_kept_until_it_has_reported_the_end_of_its_task() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["slow-report"]).await;
    make(&node, "c1", "slow-report", "").await.unwrap();
    node.tasks.start(&node.scope, "c1", "").await.unwrap();
    end(&node, "c1").await;
    // As it sent them: nobody else sent them for it.
    node.bus.expect("c1", &["/tasks/start", "/tasks/delete", "/tasks/exit"]).await;
    node.assert_clean();
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}

#[tokio::test]
async fn what_a_shim_does_not_report_is_reported_for_it() {
    let base = tempfile::tempdir().unwrap();
    let timeouts = Timeouts { report: Duration::from_millis(100), ..timeouts() };
    let node = Node::start(base.path(), &[shims(base.path(), &["no-report"])], timeouts).await;
    make(&node, "c1", "no-report", "").await.unwrap();
    node.tasks.start(&node.scope, "c1", "").await.unwrap();
    end(&node, "c1").await;
    node.bus.expect("c1", &["/tasks/start", "/tasks/delete", "/tasks/exit"]).await;
    node.assert_clean();
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}

#[tokio::test]
async fn a_deaf_shim_costs_its_callers_their_deadline() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["deaf"]).await;
    make(&node, "c1", "deaf", "").await.unwrap();
    assert_eq!(node.tasks.kill(&node.scope, kill("c1")).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(node.tasks.get(&node.scope, "c1", "").await.unwrap().state, State::Running);
    let shim = node.shims.get(&node.scope.namespace, "c1", Role::Task).await.unwrap().pid().unwrap();
    let pid = rustix::process::Pid::from_raw(shim.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    node.bus.expect("c1", &["/tasks/exit", "/tasks/delete"]).await;
}

#[tokio::test]
async fn containers_join_the_shim_of_their_sandbox() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["ok"]).await;
    make(&node, "pod", "ok", "").await.unwrap();
    make(&node, "c1", "ok", "pod").await.unwrap();
    assert!(!base.path().join("s/c1.sock").exists(), "no second shim was started");
    assert_eq!(node.tasks.list(&node.scope, &Filters::default()).await.unwrap().len(), 2);
    end(&node, "c1").await;
    assert_eq!(node.tasks.get(&node.scope, "pod", "").await.unwrap().state, State::Running);
    end(&node, "pod").await;
    node.assert_clean();
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}

#[tokio::test]
async fn a_new_daemon_takes_up_what_lives_and_removes_what_does_not() {
    let base = tempfile::tempdir().unwrap();
    let first = node(base.path(), &["ok"]).await;
    for id in ["lives", "dead", "never"] {
        make(&first, id, "ok", "").await.unwrap();
    }
    // A shim whose task was never created: as after a crash between the two.
    let shim = first.shims.get(&first.scope.namespace, "never", Role::Task).await.unwrap();
    let client = kevel_ttrpc::Client::connect(base.path().join("s/never.sock")).await.unwrap();
    let call = async |method, request: &dyn prost_bytes::Encoded| {
        let options = kevel_ttrpc::CallOptions::timeout(Duration::from_secs(5));
        client.call_encoded(kevel_proto::shim::task::SERVICE_V3, method, request.bytes(), options).await.unwrap();
    };
    use kevel_proto::shim::task::{DeleteRequest, KillRequest, method};
    call(method::KILL, &KillRequest { id: "never".into(), signal: 9, ..KillRequest::default() }).await;
    call(method::DELETE, &DeleteRequest { id: "never".into(), ..DeleteRequest::default() }).await;
    drop(shim);
    let dead = first.shims.get(&first.scope.namespace, "dead", Role::Task).await.unwrap().pid().unwrap();
    let bundles = [first.bundle("dead"), first.bundle("never")];
    fs::create_dir(first.bundle(".halfway")).unwrap();
    fs::create_dir(first.bundle("empty")).unwrap();
    fs::create_dir(first.dirs.root.join("test/orphan")).unwrap();
    drop((first, client));
    let pid = rustix::process::Pid::from_raw(dead.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(|| !Path::new(&format!("/proc/{dead}/exe")).exists(), || format!("shim {dead} lives")).await;

    let second = Node::start_with(base.path(), &[base.path().join("bin")], timeouts(), Records::default()).await;
    assert_eq!(second.tasks.get(&second.scope, "lives", "").await.unwrap().state, State::Running);
    for id in ["dead", "never"] {
        assert!(second.tasks.get(&second.scope, id, "").await.unwrap_err().is_not_found(), "{id}");
    }
    assert_eq!(second.tasks.delete(&second.scope, "dead").await.unwrap().exit.status, 137);
    second.bus.expect("dead", &["/tasks/exit", "/tasks/delete"]).await;
    until(|| second.recovery.is_finished(), || "recovery goes on".into()).await;
    for gone in bundles.iter().cloned().chain([second.bundle(".halfway"), second.bundle("empty")]) {
        assert!(!gone.exists(), "{gone:?}");
    }
    assert!(!second.dirs.root.join("test/orphan").exists());
    end(&second, "lives").await;
    second.assert_clean_but(&["deleted"]);
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}

#[tokio::test]
async fn after_a_reboot_nobody_is_asked() {
    let base = tempfile::tempdir().unwrap();
    let first = node(base.path(), &["ok"]).await;
    make(&first, "c1", "ok", "").await.unwrap();
    let (bundle, state) = (first.bundle("c1"), first.dirs.state.clone());
    let shim = first.shims.get(&first.scope.namespace, "c1", Role::Task).await.unwrap().pid().unwrap();
    drop(first);
    let pid = rustix::process::Pid::from_raw(shim.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    fs::write(state.join(".boot-id"), "another boot\n").unwrap();

    let second = Node::start_with(base.path(), &[], timeouts(), Records::default()).await;
    assert!(second.tasks.get(&second.scope, "c1", "").await.is_err());
    assert!(!bundle.exists());
    assert!(!state.join("test/deleted").exists(), "the binary ran");
    second.bus.expect("c1", &["/tasks/exit", "/tasks/delete"]).await;
}

#[tokio::test]
async fn a_sandbox_by_the_sandbox_service() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["ok", "refuses"]).await;
    let dirs = kevel_runtime::Dirs { state: base.path().join("pods"), root: base.path().join("pods-root") };
    let controller = SandboxController::new(Target::local("shim"), ShimController::new(node.shims.clone(), dirs));
    let (scope, id) = (&node.scope, "pod");
    let request = |mode: &str| {
        let mut record = Sandbox::new(id);
        record.runtime.name = format!("io.containerd.{mode}.v1");
        sandbox::Create {
            sandbox: record,
            rootfs: Vec::new(),
            options: None,
            netns_path: String::new(),
            annotations: Default::default(),
        }
    };
    assert_eq!(controller.create(scope, request("refuses")).await.unwrap_err().code(), Code::FailedPrecondition);
    controller.create(scope, request("ok")).await.unwrap();
    assert!(controller.create(scope, request("ok")).await.unwrap_err().is_already_exists());
    let started = controller.start(scope, id).await.unwrap();
    assert_eq!((started.pid, started.version), (7, 3));
    assert!(started.address.starts_with("ttrpc+unix:///"));
    assert_eq!(controller.status(scope, id, false).await.unwrap().state, READY);
    assert_eq!(controller.metrics(scope, id).await.unwrap_err().code(), Code::Unimplemented);

    node.record("c1", "io.containerd.ok.v1", id, json!({})).await;
    let mut task = create("c1", None);
    (task.address, task.version) = (started.address, started.version);
    node.tasks.create(scope, task).await.unwrap();
    assert_eq!(node.tasks.list(scope, &Filters::default()).await.unwrap().len(), 1, "a sandbox is no task");
    end(&node, "c1").await;

    controller.stop(scope, id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(controller.wait(scope, id).await.unwrap().status, 0);
    assert_eq!(controller.status(scope, id, false).await.unwrap().state, NOT_READY);
    controller.shutdown(scope, id).await.unwrap();
    controller.shutdown(scope, id).await.unwrap();
    assert!(!base.path().join("pods/test/pod").exists());
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}

/// Encoding without naming prost in each call.
mod prost_bytes {
    pub(super) trait Encoded {
        fn bytes(&self) -> bytes::Bytes;
    }

    impl<M: prost::Message> Encoded for M {
        fn bytes(&self) -> bytes::Bytes {
            self.encode_to_vec().into()
        }
    }
}
