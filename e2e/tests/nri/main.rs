//! NRI with plugins on the Go module's own stub: hooks and their order, adjustments that containers see, updates,
//! refusals, validation, plugins that are slow, die and come back, and plugins that the daemon starts.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

mod foreign;
mod setup;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use kevel_e2e::{find, patience, until};
use kevel_proto::runtime::v1 as cri;
use serde_json::{Value, json};
use setup::{setup, setup_within};

/// Slower than a second, in milliseconds.
fn slow() -> u64 {
    u64::try_from(patience(5).as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_told_of_a_whole_life_in_order_and_adjust_a_container() {
    let mut setup = setup("").await;
    let shared = setup.node.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "from the plugin").unwrap();
    let script = json!({
        "Env": { "ADDED": "yes" },
        "Annotations": { "example.test/added": "yes" },
        "Mounts": [{
            "destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "ro"],
        }],
        "Devices": [{ "path": "/dev/added", "type": "c", "major": 1, "minor": 3 }],
        "Rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 222, "soft": 111 }],
        "MemoryLimit": 48 << 20,
        "OomScoreAdj": 901,
    });
    setup.plugin("10", "first", script);
    setup.plugin("20", "second", json!({ "Env": { "MORE": "too" } }));
    let pod = setup.pod("life");
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "main").await;

    assert_eq!(setup.exec(&container, "echo $ADDED $MORE; cat /shared/file").await, "yes too\nfrom the plugin");
    assert_eq!(setup.open_files(&container).await, "111");
    assert_eq!(
        setup.exec(&container, "touch /shared/x || echo ro; echo hi > /dev/added && echo written").await,
        "ro\nwritten"
    );
    assert_eq!(setup.memory(&container).await.1, 48 << 20);
    let request = cri::ContainerStatusRequest { container_id: container.clone(), verbose: true };
    let info = setup.runtime.container_status(request).await.unwrap().into_inner().info;
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    assert_eq!(info["runtimeSpec"]["annotations"]["example.test/added"], "yes");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", info["pid"])).unwrap();
    assert_eq!(score.trim(), "901");

    setup.update(&container, 32 << 20).await;
    assert_eq!(setup.memory(&container).await, (32 << 20, 32 << 20));
    setup.stop_and_remove(&container).await;
    setup.remove_pod(&id).await;
    setup.remove_pod(&id).await;
    let expected = [
        "Configure",
        "Synchronize",
        "RunPodSandbox life",
        "CreateContainer main",
        "ValidateContainerAdjustment main",
        "PostCreateContainer main",
        "StartContainer main",
        "PostStartContainer main",
        "UpdateContainer main",
        "PostUpdateContainer main",
        "StopContainer main",
        "RemoveContainer main",
        "StopPodSandbox life",
        "RemovePodSandbox life",
    ];
    assert_eq!(setup.told("first"), expected);
    assert_eq!(setup.told("second"), expected);
    let events = setup.events("second");
    assert!(events[0]["Detail"].as_str().unwrap().starts_with("kevel v"), "{}", events[0]);
    assert!(events[2]["Detail"].as_str().unwrap().starts_with("10."), "the pod's address: {}", events[2]);
    let env: Vec<String> = serde_json::from_value(events[3]["Env"].clone()).unwrap();
    assert!(env.contains(&"ADDED=yes".to_owned()), "the second plugin sees what the first did: {env:?}");
    assert_eq!(events[3]["Memory"], 48 << 20);
    assert_eq!(events[4]["Pods"], json!(["10-first", "20-second"]), "both were asked");
    assert_eq!(events[8]["Memory"], 32 << 20);
    assert_eq!((events[6]["State"].as_str(), events[7]["State"].as_str()), (Some("CREATED"), Some("RUNNING")));
    assert_eq!(events[10]["State"], "STOPPED");
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_or_a_conflict_leaves_nothing_and_a_retry_works() {
    let mut setup = setup("").await;
    let refuse = json!({ "RunPodSandbox": "bad", "CreateContainer": "bad", "StartContainer": "lazy" });
    setup.plugin("10", "strict", json!({ "Refuse": refuse, "Annotations": { "k": "1" } }));
    let bad = setup.pod("bad");
    let refused = setup.try_run(&bad).await.unwrap_err();
    assert!(refused.message().contains("10-strict refused RunPodSandbox"), "{refused}");
    assert_eq!(setup.lists().await, (0, 0));

    let pod = setup.pod("good");
    let id = setup.run(&pod).await;
    let refused = setup.try_create(&id, &pod, "bad").await.unwrap_err();
    assert!(refused.message().contains("10-strict refused CreateContainer"), "{refused}");
    assert_eq!(setup.lists().await, (1, 0));

    setup.plugin("20", "rival", json!({ "Annotations": { "k": "2" } }));
    let refused = setup.try_create(&id, &pod, "both").await.unwrap_err();
    assert!(refused.message().contains("both tried to set Annotations k"), "{refused}");
    let mut rival = setup.plugins.pop().unwrap();
    rival.kill().unwrap();
    rival.wait().unwrap();
    until("the rival to be gone", || setup.node.log().contains("an NRI plugin is gone").then_some(())).unwrap();
    let container = setup.start(&id, &pod, "both").await;
    assert_eq!(setup.exec(&container, "echo runs").await, "runs");

    // A start that is refused is a container that has ended.
    let container_id = setup.try_create(&id, &pod, "lazy").await.unwrap();
    let request = cri::StartContainerRequest { container_id: container_id.clone() };
    let refused = setup.runtime.start_container(request).await.unwrap_err();
    assert!(refused.message().contains("10-strict refused StartContainer"), "{refused}");
    let request = cri::ContainerStatusRequest { container_id, verbose: false };
    let status = setup.runtime.container_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), cri::ContainerState::ContainerExited);
    assert!(setup.told("strict").ends_with(&["StopContainer lazy".to_owned()]), "{:?}", setup.told("strict"));
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_change_updates_and_update_other_containers() {
    let mut setup = setup("").await;
    setup.plugin("10", "updater", json!({ "UpdateTo": 40 << 20, "SquashAll": 24 << 20 }));
    let pod = setup.pod("limits");
    let id = setup.run(&pod).await;
    let first = setup.start(&id, &pod, "first").await;
    setup.update(&first, 50 << 20).await;
    assert_eq!(setup.memory(&first).await, (40 << 20, 40 << 20), "the plugin's wish replaces the kubelet's");
    let second = setup.start(&id, &pod, "second").await;
    assert_eq!(setup.memory(&first).await, (24 << 20, 24 << 20), "updated when the second was created");
    assert_eq!(setup.memory(&second).await, (64 << 20, 64 << 20));
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_dead_plugins_cost_what_their_policy_says() {
    let mut setup = setup_within(1, "").await;
    let slow = json!({ "CreateContainer": slow() });
    setup.plugin("10", "skipped", json!({ "Slow": slow, "Env": { "SKIPPED": "no" } }));
    setup.plugin("20", "kept", json!({ "Slow": slow, "Keep": true, "Env": { "KEPT": "yes" } }));
    setup.plugin("30", "strict", json!({ "Slow": slow, "Keep": true, "FailPolicy": true }));
    let pod = setup.pod("slow");
    let id = setup.run(&pod).await;
    let refused = setup.try_create(&id, &pod, "one").await.unwrap_err();
    assert!(refused.message().contains("30-strict did not answer CreateContainer"), "{refused}");
    assert_eq!(setup.lists().await, (1, 0));
    until("the slow plugin to be gone", || setup.node.log().contains("an NRI plugin is gone").then_some(())).unwrap();
    // Each was slow once; the first lost its connection for it.
    let container = setup.start(&id, &pod, "two").await;
    assert_eq!(setup.exec(&container, "echo $SKIPPED$KEPT").await, "yes");

    // A plugin that is killed is gone, and what goes on needs it no more.
    for plugin in &mut setup.plugins {
        plugin.kill().unwrap();
        plugin.wait().unwrap();
    }
    let container = setup.start(&id, &pod, "three").await;
    assert_eq!(setup.exec(&container, "echo [$KEPT]").await, "[]");
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_comes_back_or_comes_late_is_told_what_is_there() {
    let mut setup = setup("").await;
    setup.plugin("10", "back", json!({ "Reconnect": true }));
    let pod = setup.pod("old");
    let id = setup.run(&pod).await;
    setup.start(&id, &pod, "here").await;
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    setup.runtime = setup.node.cri().await.unwrap().0;
    let synchronized = until("the plugin to be told again", || {
        let events = setup.events("back");
        let mut all = events.into_iter().filter(|event| event["Event"] == "Synchronize");
        all.nth(1)
    });
    let synchronized = synchronized.unwrap();
    assert_eq!((&synchronized["Pods"], &synchronized["Containers"]), (&json!(["old"]), &json!(["here"])));

    // Containers are made while a plugin joins and takes its time: it sees each exactly once.
    setup.spawn("20", "late", json!({ "Slow": { "Synchronize": 1000 } }));
    let names: Vec<String> = (0..6).map(|number| format!("new-{number}")).collect();
    let creations = names.iter().map(|name| {
        let (request, mut runtime) = (setup.creation(&id, &pod, name), setup.runtime.clone());
        tokio::spawn(async move { runtime.create_container(request).await.map(drop) })
    });
    for creation in creations.collect::<Vec<_>>() {
        creation.await.unwrap().unwrap();
    }
    until("the plugin to be ready", || (setup.ready("20", "late") > 0).then_some(())).unwrap();
    setup.start(&id, &pod, "last").await;
    let mut seen = Vec::new();
    for event in setup.events("late") {
        match event["Event"].as_str().unwrap() {
            "Synchronize" => seen.extend(serde_json::from_value::<Vec<String>>(event["Containers"].clone()).unwrap()),
            "CreateContainer" => seen.push(event["Container"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }
    seen.sort();
    let mut expected = names;
    expected.extend(["here".to_owned(), "last".to_owned()]);
    expected.sort();
    assert_eq!(seen, expected);
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn validators_reject_what_others_adjust_and_required_plugins_must_answer() {
    let nri = r#"
[plugins."io.containerd.nri.v1.nri".default_validator]
enable = true
reject_oci_hook_adjustment = true
required_plugins = ["needed"]
tolerate_missing_plugins_annotation = "example.test/tolerate"
"#;
    let mut setup = setup_within(1, nri).await;
    let pod = setup.pod("checked");
    let id = setup.run(&pod).await;
    let refused = setup.try_create(&id, &pod, "alone").await.unwrap_err();
    assert!(refused.message().contains("needed"), "{refused}");
    let mut tolerant = setup.pod("tolerant");
    tolerant.annotations = BTreeMap::from([("example.test/tolerate".to_owned(), "true".to_owned())]);
    let other = setup.run(&tolerant).await;
    setup.start(&other, &tolerant, "tolerated").await;

    setup.plugin("10", "needed", json!({ "Slow": { "CreateContainer": slow() }, "Keep": true }));
    let refused = setup.try_create(&id, &pod, "unanswered").await.unwrap_err();
    assert!(refused.message().contains("did not answer"), "{refused}");
    setup.start(&id, &pod, "answered").await;

    setup.plugin("20", "hooks", json!({ "Hooks": { "poststart": [{ "path": "/bin/true" }] } }));
    let refused = setup.try_create(&id, &pod, "hooked").await.unwrap_err();
    assert!(refused.message().contains("20-hooks"), "{refused}");
    let mut hooks = setup.plugins.pop().unwrap();
    hooks.kill().unwrap();
    hooks.wait().unwrap();

    setup.plugin("30", "judge", json!({ "Validate": "writer" }));
    setup.plugin("40", "writer", json!({ "Annotations": { "k": "v" } }));
    let refused = setup.try_create(&id, &pod, "judged").await.unwrap_err();
    assert!(refused.message().contains("40-writer set annotation k"), "{refused}");
    setup.remove_pod(&id).await;
    setup.remove_pod(&other).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_plugins_run_before_the_first_pod_and_are_started_again() {
    let mut setup = setup("disable_connections = true").await;
    setup.node.stop().unwrap();
    let (plugins, configs) = (setup.node.path("nri-plugins"), setup.node.path("nri-conf.d"));
    fs::create_dir(&plugins).unwrap();
    fs::create_dir(&configs).unwrap();
    let program = plugins.join("15-installed");
    fs::copy(find("nriplugin").unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let script = json!({ "Log": setup.log("installed"), "Env": { "INSTALLED": "yes" } });
    fs::write(configs.join("installed.conf"), script.to_string()).unwrap();
    setup.node.launch().unwrap();
    setup.runtime = setup.node.cri().await.unwrap().0;
    assert!(!setup.node.path("nri.sock").exists(), "nobody else can connect");
    assert_eq!(setup.told("installed"), ["Configure", "Synchronize"], "ready before the daemon is");
    let pod = setup.pod("guarded");
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "main").await;
    assert_eq!(setup.exec(&container, "echo $INSTALLED").await, "yes");

    let mark = program.display().to_string();
    let running = || {
        let processes = setup.node.leaks().processes;
        processes
            .into_iter()
            .find(|line| line.ends_with(&mark))
            .and_then(|line| line.split(' ').next()?.parse::<u32>().ok())
    };
    let first = running().unwrap();
    kevel_e2e::run(std::path::Path::new("/bin/kill"), &["-KILL", &first.to_string()]).unwrap();
    let second = until("the plugin to be started again", || running().filter(|pid| *pid != first)).unwrap();
    until("the plugin to be told again", || {
        let told = setup.told("installed");
        (told.iter().filter(|event| *event == "Synchronize").count() == 2).then_some(())
    })
    .unwrap();
    setup.remove_pod(&id).await;
    setup.node.stop().unwrap();
    assert!(!PathBuf::from(format!("/proc/{second}")).exists(), "it ends with the daemon");
    assert!(setup.told("installed").contains(&"Shutdown".to_owned()));
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_dies_in_the_middle_fails_what_its_policy_says() {
    let mut setup = setup("").await;
    setup.plugin("10", "lax", json!({ "Die": { "CreateContainer": "one" } }));
    setup.plugin("20", "strict", json!({ "Die": { "CreateContainer": "two" }, "FailPolicy": true }));
    let pod = setup.pod("deaths");
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "one").await;
    assert_eq!(setup.exec(&container, "echo runs").await, "runs");
    assert!(setup.told("strict").contains(&"CreateContainer one".to_owned()), "the others are asked all the same");
    let refused = setup.try_create(&id, &pod, "two").await.unwrap_err();
    assert!(refused.message().contains("20-strict"), "{refused}");
    assert_eq!(setup.lists().await, (1, 1));
    setup.start(&id, &pod, "two").await;
    setup.remove_pod(&id).await;
    setup.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_evicts_a_container_for_another() {
    let mut setup = setup("").await;
    setup.plugin("10", "crowded", json!({ "Evict": { "important": "idle" } }));
    let pod = setup.pod("crowd");
    let id = setup.run(&pod).await;
    let idle = setup.start(&id, &pod, "idle").await;
    let other = setup.start(&id, &pod, "other").await;
    let important = setup.start(&id, &pod, "important").await;
    let mut states = Vec::new();
    for container_id in [idle, other, important] {
        let request = cri::ContainerStatusRequest { container_id, verbose: false };
        let status = setup.runtime.container_status(request).await.unwrap().into_inner().status.unwrap();
        states.push((status.state(), status.exit_code));
    }
    let running = (cri::ContainerState::ContainerRunning, 0);
    assert_eq!(states, [(cri::ContainerState::ContainerExited, 137), running, running]);
    assert!(setup.told("crowded").contains(&"StopContainer idle".to_owned()), "plugins hear of it");
    setup.remove_pod(&id).await;
    setup.clean();
}

/// ttrpc carries 4 MiB in a message.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_a_message_is_told_in_parts() {
    const PODS: usize = 3;
    let mut setup = setup("").await;
    let mut ids = Vec::new();
    let large = BTreeMap::from([("example.test/large".to_owned(), "x".repeat(1 << 20))]);
    for number in 0..PODS {
        let mut pod = setup.pod(&format!("pod-{number}"));
        pod.annotations = large.clone();
        let id = setup.run(&pod).await;
        let mut request = setup.creation(&id, &pod, &format!("container-{number}"));
        request.config.as_mut().unwrap().annotations = large.clone();
        setup.runtime.create_container(request).await.unwrap();
        ids.push(id);
    }
    setup.plugin("10", "reader", json!({}));
    let events = setup.events("reader");
    let told = |key: &str| {
        let mut names: Vec<String> = serde_json::from_value(events[1][key].clone()).unwrap();
        names.sort();
        names
    };
    assert_eq!(events.len(), 2, "told once: {:?}", setup.told("reader"));
    assert_eq!(told("Pods"), ["pod-0", "pod-1", "pod-2"]);
    assert_eq!(told("Containers"), ["container-0", "container-1", "container-2"]);
    for id in ids {
        setup.remove_pod(&id).await;
    }
    setup.clean();
}
