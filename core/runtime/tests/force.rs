//! Shims that are stuck: a container that was sent SIGKILL ends in bounded time all the same, whoever else waits for it is
//! told, and nothing is left. Shown with the fake shim.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod harness;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use harness::{Node, assert_no_leaks, create, shims};
use kevel_contract::{
    metric::MetricRegistry,
    task::{Kill, State},
};
use kevel_model::Code;
use kevel_runtime::{Role, Timeouts};
use serde_json::json;

/// No step of an escalation takes longer; all of them together are a handful.
const STEP: Duration = Duration::from_millis(400);
/// The escalation ends in this time even on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

async fn node(base: &Path, modes: &[&str]) -> Node {
    let timeouts = Timeouts {
        quick: STEP,
        kill: STEP,
        end: STEP,
        state: STEP,
        delete: STEP,
        shutdown: STEP,
        ..Timeouts::default()
    };
    Node::start(base, &[shims(base, modes)], timeouts).await
}

async fn make(node: &Node, id: &str, mode: &str, sandbox: &str) {
    node.record(id, &format!("io.containerd.{mode}.v1"), sandbox, json!({})).await;
    node.tasks.create(&node.scope, create(id, None)).await.unwrap();
    node.tasks.start(&node.scope, id, "").await.unwrap();
}

fn kill(id: &str) -> Kill {
    Kill { container_id: id.into(), signal: 9, ..Kill::default() }
}

/// The end of a container, as whoever waits for it learns it.
fn waiter(node: &Node, id: &str) -> tokio::task::JoinHandle<kevel_model::Result<u32>> {
    let (tasks, scope, id) = (node.tasks.clone(), node.scope.clone(), id.to_owned());
    tokio::spawn(async move { Ok(tasks.wait(&scope, &id, "").await?.status) })
}

#[tokio::test]
async fn a_stuck_shim_is_killed_and_its_containers_end() {
    // The process is stopped; it answers for itself but not for the container; it takes the kill and falls silent.
    for mode in ["frozen", "mute", "drowsy"] {
        let base = tempfile::tempdir().unwrap();
        let node = node(base.path(), &[mode]).await;
        make(&node, "pod", mode, "").await;
        make(&node, "c1", mode, "pod").await;
        let waiters = [waiter(&node, "pod"), waiter(&node, "c1")];
        let begun = Instant::now();
        node.tasks.kill(&node.scope, kill("c1")).await.unwrap_or_else(|error| panic!("{mode}: {}", error.chain()));
        for waiter in waiters {
            let status = tokio::time::timeout(BOUND, waiter).await;
            assert_eq!(status.unwrap_or_else(|_| panic!("{mode}: no end")).unwrap().unwrap(), 137, "{mode}");
        }
        assert!(begun.elapsed() < BOUND, "{mode}: {:?}", begun.elapsed());
        for id in ["pod", "c1"] {
            node.bus.expect(id, &["/tasks/exit", "/tasks/delete"]).await;
            assert_eq!(node.tasks.delete(&node.scope, id).await.unwrap().exit.status, 137, "{mode}");
        }
        harness::until(|| !node.bundle("pod").exists() && !node.bundle("c1").exists(), || "a bundle is left".into())
            .await;
        assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
    }
}

#[tokio::test]
async fn a_shim_that_answers_is_not_blamed_for_what_the_kernel_does_not_end() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["deaf"]).await;
    make(&node, "c1", "deaf", "").await;
    let error = node.tasks.kill(&node.scope, kill("c1")).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.chain().contains("has a process that the kernel does not end"), "{}", error.chain());
    assert_eq!(node.tasks.get(&node.scope, "c1", "").await.unwrap().state, State::Running);
    let shim = node.shims.get(&node.scope.namespace, "c1", Role::Task).await.unwrap().pid().unwrap();
    assert!(harness::processes(base.path().to_str().unwrap()).contains(&shim));
    let pid = rustix::process::Pid::from_raw(shim.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    node.bus.expect("c1", &["/tasks/exit", "/tasks/delete"]).await;
}

#[tokio::test]
async fn a_delete_that_hangs_is_bounded() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["sticky", "icy"]).await;
    make(&node, "sticky", "sticky", "").await;
    make(&node, "icy", "icy", "").await;
    for id in ["sticky", "icy"] {
        node.tasks.kill(&node.scope, kill(id)).await.unwrap();
        assert_eq!(node.tasks.wait(&node.scope, id, "").await.unwrap().status, 137);
    }
    // One answers for itself, and may yet be done; the other does not, and is killed.
    let begun = Instant::now();
    assert_eq!(node.tasks.delete(&node.scope, "sticky").await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(node.tasks.delete(&node.scope, "icy").await.unwrap().exit.status, 137);
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(!node.bundle("icy").exists() && node.bundle("sticky").exists());
    let shim = node.shims.get(&node.scope.namespace, "sticky", Role::Task).await.unwrap().pid().unwrap();
    let pid = rustix::process::Pid::from_raw(shim.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}

#[tokio::test]
async fn callers_of_a_silent_shim_are_refused_at_once() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), &["mute", "ok"]).await;
    let metrics = MetricRegistry::default();
    node.shims.expose(&metrics).unwrap();
    let stuck = |stage: &str| {
        let families = metrics.gather();
        let family = families.iter().find(|family| family.name() == "kevel_shim_stuck_total").unwrap();
        let of = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == stage;
        family.get_metric().iter().find(of).unwrap().get_counter().get_value()
    };
    make(&node, "c1", "mute", "").await;
    make(&node, "c2", "ok", "").await;
    for _ in 0..3 {
        assert_eq!(node.tasks.pids(&node.scope, "c1").await.unwrap_err().code(), Code::DeadlineExceeded);
    }
    // Who had waited for it would have been told of a deadline.
    let error = node.tasks.pids(&node.scope, "c1").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.chain().contains("its shim has not answered for"), "{}", error.chain());
    node.tasks.pids(&node.scope, "c2").await.unwrap();
    node.bus.expect_stuck("c1", "silent").await;
    assert_eq!((stuck("silent"), stuck("killed")), (1.0, 0.0));
    // Ending it is never refused.
    for id in ["c1", "c2"] {
        node.tasks.kill(&node.scope, kill(id)).await.unwrap();
        node.bus.expect("c1", &["/tasks/exit", "/tasks/delete"]).await;
    }
    assert_eq!(node.tasks.delete(&node.scope, "c2").await.unwrap().exit.status, 137);
    for stage in ["forced", "killed"] {
        node.bus.expect_stuck("c1", stage).await;
        assert_eq!(stuck(stage), 1.0, "{stage}");
    }
    assert_no_leaks(base.path(), base.path().to_str().unwrap()).await;
}
