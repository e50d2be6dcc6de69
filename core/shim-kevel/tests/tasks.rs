//! What tasks do beyond the conformance of `core/runtime/tests/runc.rs`, on the shim's own socket: streams of every kind,
//! terminals, resources, other runtimes, mistakes. Needs root, `runc`, `runsc` and a static `busybox` in `PATH`.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "tests look for binaries in PATH, as a user would")]

mod harness;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use harness::{Shim, State, script_of, until};
use kevel_proto::{
    any,
    containerd::{runc::v1::Options, types::RuntimeInfo},
    io::containerd::cgroups,
    shim::task,
};
use kevel_ttrpc::Code;
use prost::Message as _;
use prost_types::Any;
use serde_json::json;

const LOOP: &str = "trap 'exit 7' TERM; while :; do sleep 0.05; done";

#[tokio::test]
async fn streams_go_through_fifos_both_ways() {
    let shim = Shim::start("fifo").await;
    shim.spec(&script_of("read a; read b; echo out $a$b; echo err >&2; cat >/dev/null; echo end"), json!({}));
    let (stdin, stdout, stderr) = (shim.fifo("in"), shim.output("out"), shim.output("err"));
    let create = task::CreateTaskRequest {
        stdin: stdin.clone(),
        stdout: stdout.clone(),
        stderr: stderr.clone(),
        ..shim.create_request()
    };
    shim.create(create).await.unwrap();
    shim.start_task("").await.unwrap();
    // Whoever writes may come and go; only CloseIO ends the input.
    for line in ["1\n", "2\n"] {
        fs::write(&stdin, line).unwrap();
    }
    assert_eq!(shim.read_until(&stdout, "\n").await, "out 12\n");
    assert_eq!(shim.read_until(&stderr, "\n").await, "err\n");
    assert_eq!(shim.state("").await.status(), State::Running);
    let close = task::CloseIoRequest { id: shim.id.clone(), exec_id: String::new(), stdin: true };
    shim.call::<_, ()>(task::method::CLOSE_IO, &close).await.unwrap();
    assert_eq!(shim.read_until(&stdout, "\n").await, "end\n");
    assert_eq!(shim.wait("").await.exit_status, 0);
    shim.delete("").await.unwrap();
    shim.end().await;
}

#[tokio::test]
async fn files_and_programs_take_output() {
    let shim = Shim::start("uri").await;
    let file = shim.dir().join("logs/both.log");
    shim.spec(&script_of("echo one; echo two >&2"), json!({}));
    let uri = format!("file://{}", file.display());
    let create = task::CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..shim.create_request() };
    shim.create(create).await.unwrap();
    shim.start_task("").await.unwrap();
    assert_eq!(shim.wait("").await.exit_status, 0);
    shim.delete("").await.unwrap();
    let mut lines: Vec<_> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one", "two"]);

    // A program of one's own: it says that it is ready, and gets both streams and who it is for.
    let (program, taken) = (shim.dir().join("logger"), shim.dir().join("taken"));
    let text = "#!/bin/sh\n{ echo \"$CONTAINER_NAMESPACE/$CONTAINER_ID $1=$2\"; /bin/cat <&3; /bin/cat <&4; } >$2 &\n\
        echo -n r >&5; exec 5>&-; wait\n";
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let uri = format!("binary-v2://{}?file={}", program.display(), taken.display());
    let create = task::CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..shim.create_request() };
    shim.create(create).await.unwrap();
    shim.start_task("").await.unwrap();
    assert_eq!(shim.wait("").await.exit_status, 0);
    shim.delete("").await.unwrap(); // waits for the program
    let want = format!("ns/{} file={}\none\ntwo\n", shim.id, taken.display());
    assert_eq!(fs::read_to_string(taken).unwrap(), want);

    // One that ends before it is ready is an error, and nothing is made.
    let create = task::CreateTaskRequest { stdout: "binary-v2:///bin/true".into(), ..shim.create_request() };
    let error = shim.create(create).await.unwrap_err();
    assert!(error.to_string().contains("ready"), "{error}");
    for (stdout, part) in [("http://x", "http"), ("/no/such/fifo", "/no/such/fifo")] {
        let error = shim.create(task::CreateTaskRequest { stdout: stdout.into(), ..shim.create_request() }).await;
        assert!(error.unwrap_err().to_string().contains(part));
    }
    shim.end().await;
}

#[tokio::test]
async fn terminals_of_the_first_process_and_of_execs() {
    let shim = Shim::start("tty").await;
    let mut process = script_of("read x; stty size; echo got $x; exit 4");
    process["terminal"] = true.into();
    shim.spec(&process, json!({}));
    let (stdin, stdout) = (shim.fifo("in"), shim.output("out"));
    let create = task::CreateTaskRequest {
        terminal: true,
        stdin: stdin.clone(),
        stdout: stdout.clone(),
        ..shim.create_request()
    };
    shim.create(create).await.unwrap();
    let size =
        |exec_id: &str| task::ResizePtyRequest { id: shim.id.clone(), exec_id: exec_id.into(), width: 91, height: 37 };
    shim.call::<_, ()>(task::method::RESIZE_PTY, &size("")).await.unwrap();
    shim.start_task("").await.unwrap();

    let (exec_in, exec_out) = (shim.fifo("exec-in"), shim.output("exec-out"));
    let exec = task::ExecProcessRequest {
        terminal: true,
        stdin: exec_in.clone(),
        stdout: exec_out.clone(),
        ..shim.exec_request("e1", &script_of("read x; stty size; exit 5"))
    };
    shim.call::<_, ()>(task::method::EXEC, &exec).await.unwrap();
    shim.start_task("e1").await.unwrap();
    shim.call::<_, ()>(task::method::RESIZE_PTY, &size("e1")).await.unwrap();
    fs::write(&exec_in, "go\n").unwrap();
    let said = shim.read_until(&exec_out, "37 91").await;
    assert!(said.starts_with("go"), "the terminal echoes: {said:?}");
    assert_eq!(shim.wait("e1").await.exit_status, 5);
    assert_eq!(shim.delete("e1").await.unwrap().exit_status, 5);

    fs::write(&stdin, "it\n").unwrap();
    let said = shim.read_until(&stdout, "got it").await;
    assert!(said.contains("37 91"), "{said:?}");
    assert_eq!(shim.wait("").await.exit_status, 4);
    shim.delete("").await.unwrap();
    shim.end().await;
}

#[tokio::test]
async fn execs_are_told_apart_and_end_before_their_container() {
    let shim = Shim::start("exec").await;
    shim.spec(&script_of(LOOP), json!({}));
    shim.create(shim.create_request()).await.unwrap();
    shim.start_task("").await.unwrap();
    let add = |id: &'static str| {
        let request = shim.exec_request(id, &script_of(&format!("trap 'exit 7' TERM; : >/bin/at-{id}; {LOOP}")));
        let shim = &shim;
        async move { shim.call::<_, ()>(task::method::EXEC, &request).await }
    };
    add("e1").await.unwrap();
    assert_eq!(add("e1").await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(shim.delete("e2").await.unwrap_err().code(), Code::NotFound);
    let pid = shim.start_task("e1").await.unwrap();
    let pids: task::PidsResponse =
        shim.call(task::method::PIDS, &task::PidsRequest { id: shim.id.clone() }).await.unwrap();
    let process = pids.processes.iter().find(|process| process.pid == pid).unwrap();
    assert!(process.info.as_ref().unwrap().type_url.ends_with("ProcessDetails"));
    assert_eq!(shim.delete("e1").await.unwrap_err().code(), Code::FailedPrecondition);
    add("e3").await.unwrap(); // never started
    assert_eq!(shim.kill("e3", 9).await.unwrap_err().code(), Code::FailedPrecondition);
    shim.delete("e3").await.unwrap();
    until("the trap to be set", || shim.dir().join("img/bin/at-e1").exists()).await;
    shim.kill("e1", 15).await.unwrap();
    assert_eq!(shim.wait("e1").await.exit_status, 7);
    assert_eq!(shim.kill("e1", 9).await.unwrap_err().code(), Code::NotFound);

    // One that runs on ends with the container, and its end is told first.
    add("e4").await.unwrap();
    shim.start_task("e4").await.unwrap();
    shim.kill("", 9).await.unwrap();
    assert_eq!(shim.wait("").await.exit_status, 137);
    assert_eq!(shim.wait("e4").await.exit_status, 137);
    assert_eq!(shim.kill("", 9).await.unwrap_err().code(), Code::NotFound);
    let late = shim.exec_request("e5", &script_of("true"));
    let late = shim.call::<_, ()>(task::method::EXEC, &late).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    shim.delete("").await.unwrap();
    shim.end().await;
    let topics = shim.topics();
    let exits = topics.iter().filter(|topic| topic.starts_with("/tasks/exit")).collect::<Vec<_>>();
    assert_eq!(exits, ["/tasks/exit e1", "/tasks/exit e4", &format!("/tasks/exit {}", shim.id)]);
}

#[tokio::test]
async fn what_outlives_the_first_process_is_ended_with_it() {
    let shim = Shim::start("shared").await;
    // The host's process namespace: nobody ends what the first process leaves, but we.
    shim.spec_with(&script_of("sleep 1000 & sleep 0.3; exit 3"), json!({}), &["ipc", "uts", "mount"]);
    shim.create(shim.create_request()).await.unwrap();
    shim.start_task("").await.unwrap();
    assert_eq!(shim.wait("").await.exit_status, 3);
    shim.delete("").await.unwrap();
    shim.end().await;
}

#[tokio::test]
async fn resources_are_measured_changed_and_run_out_of() {
    let shim = Shim::start("mem").await;
    let limits = json!({ "memory": { "limit": 64 << 20 } });
    shim.spec(&script_of("read x; x=$(head -c 200000000 /dev/zero | tr '\\0' a); echo no"), limits);
    let stdin = shim.fifo("in");
    let create = task::CreateTaskRequest { stdin: stdin.clone(), ..shim.create_request() };
    shim.create(create).await.unwrap();
    shim.start_task("").await.unwrap();
    let stats = async || {
        let request = task::StatsRequest { id: shim.id.clone() };
        let stats: task::StatsResponse = shim.call(task::method::STATS, &request).await.unwrap();
        let stats = stats.stats.unwrap();
        if any::is::<cgroups::v1::Metrics>(&stats) {
            let stats: cgroups::v1::Metrics = any::unpack(&stats).unwrap();
            stats.memory.unwrap().usage.unwrap().limit
        } else {
            let stats: cgroups::v2::Metrics = any::unpack(&stats).unwrap();
            stats.memory.unwrap().usage_limit
        }
    };
    assert_eq!(stats().await, 64 << 20);
    let value = json!({ "memory": { "limit": 48 << 20 } }).to_string().into_bytes();
    let resources = Some(Any { type_url: any::LINUX_RESOURCES.to_owned(), value });
    let update = |resources| task::UpdateTaskRequest { id: shim.id.clone(), resources, ..Default::default() };
    shim.call::<_, ()>(task::method::UPDATE, &update(resources)).await.unwrap();
    assert_eq!(stats().await, 48 << 20);
    let error = shim.call::<_, ()>(task::method::UPDATE, &update(None)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    fs::write(&stdin, "go\n").unwrap();
    assert_ne!(shim.wait("").await.exit_status, 0);
    until("the kill to be told", || shim.topics().iter().any(|topic| topic == "/tasks/oom")).await;
    shim.delete("").await.unwrap();
    shim.end().await;
}

#[tokio::test]
async fn mistakes_change_nothing() {
    let shim = Shim::start("bad").await;
    shim.spec(&script_of("true"), json!({}));
    let wrong_options = Some(Any { type_url: "some.Options".into(), value: Vec::new() });
    let none = shim.dir().join("none").display().to_string();
    for (create, code, part) in [
        (task::CreateTaskRequest { id: String::new(), ..shim.create_request() }, Code::InvalidArgument, "id"),
        (task::CreateTaskRequest { bundle: "x".into(), ..shim.create_request() }, Code::InvalidArgument, "bundle"),
        (task::CreateTaskRequest { bundle: none, ..shim.create_request() }, Code::InvalidArgument, "config.json"),
        (
            task::CreateTaskRequest { options: wrong_options, ..shim.create_request() },
            Code::InvalidArgument,
            "some.Options",
        ),
    ] {
        let error = shim.create(create).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(shim.start_task("").await.unwrap_err().code(), Code::NotFound);
    // Created and never started: it can be removed.
    shim.create(shim.create_request()).await.unwrap();
    assert_eq!(shim.create(shim.create_request()).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(shim.state("").await.status(), State::Created);
    shim.shutdown().await; // not while there are containers
    assert_eq!(shim.delete("").await.unwrap().exit_status, 137);
    shim.end().await;
}

#[tokio::test]
async fn other_runtimes_by_name() {
    let shim = Shim::start("runsc").await;
    let wrapper = shim.dir().join("runsc");
    let text = "#!/bin/sh\nexec runsc --platform=ptrace --network=none --ignore-cgroups \"$@\"\n";
    fs::write(&wrapper, text).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    shim.spec(&script_of("dmesg | head -1; exit 6"), json!({}));
    let root = shim.dir().join("state").display().to_string();
    let binary_name = wrapper.display().to_string();
    let options = Some(any::pack(&Options { binary_name, root: root.clone(), ..Options::default() }));
    let stdout = shim.output("out");
    let create = task::CreateTaskRequest { options, stdout: stdout.clone(), ..shim.create_request() };
    shim.create(create).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(Path::new(&root).join("ns").exists());
    shim.start_task("").await.unwrap();
    assert!(shim.read_until(&stdout, "gVisor").await.contains("Starting gVisor"));
    assert_eq!(shim.wait("").await.exit_status, 6);
    shim.delete("").await.unwrap();
    shim.end().await;
}

#[tokio::test]
async fn features_come_from_the_runtime() {
    let output = harness::run(&["-info"], &any::pack(&Options::default()).encode_to_vec());
    let info = RuntimeInfo::decode(output.as_slice()).unwrap();
    assert_eq!(info.name, "io.containerd.kevel.v1");
    let features: serde_json::Value = any::unpack_json(any::FEATURES, &info.features.unwrap()).unwrap();
    assert!(features["ociVersionMax"].is_string(), "{features}");
    let silent = any::pack(&Options { binary_name: "/bin/false".into(), ..Options::default() });
    let info = RuntimeInfo::decode(harness::run(&["-info"], &silent.encode_to_vec()).as_slice()).unwrap();
    assert!(info.features.is_none() && info.options.is_some());
}
