//! NRI with what others wrote: the validator of the Go module, judging as ours does, and the sample plugins of the NRI
//! project, unchanged (`hack/nri-samples` builds them).

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
};

use kevel_e2e::{find, until};
use kevel_proto::runtime::v1 as cri;
use serde_json::{Value, json};

use crate::setup::{Setup, setup};

/// What plugins change that one of the validator's settings is about.
fn adjustments() -> [(&'static str, Value); 5] {
    let allow = json!({ "default_action": "SCMP_ACT_ALLOW" });
    [
        ("nothing", json!({ "Env": { "HARMLESS": "yes" } })),
        ("hooks", json!({ "Hooks": { "poststart": [{ "path": "/bin/true" }] } })),
        ("seccomp", json!({ "Seccomp": allow })),
        ("namespaces", json!({ "Namespaces": [{ "type": "uts" }] })),
        ("sysctls", json!({ "Sysctl": { "net.ipv4.ip_unprivileged_port_start": "1" } })),
    ]
}

/// Whether a container is made for each adjustment, under a seccomp policy of each kind.
async fn verdicts(setup: &mut Setup) -> Vec<(String, bool)> {
    let pod = setup.pod("judged");
    let id = setup.run(&pod).await;
    let mut verdicts = Vec::new();
    for (name, script) in adjustments() {
        setup.plugin("50", name, script);
        for kind in [cri::security_profile::ProfileType::RuntimeDefault, cri::security_profile::ProfileType::Unconfined]
        {
            let mut request = setup.creation(&id, &pod, name);
            let config = request.config.as_mut().unwrap();
            let seccomp = Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() });
            let linux = config.linux.as_mut().unwrap();
            linux.security_context = Some(cri::LinuxContainerSecurityContext { seccomp, ..Default::default() });
            let made = setup.runtime.create_container(request).await;
            if let Err(refused) = &made {
                assert!(refused.message().contains("validat"), "{name}: {refused}");
            }
            verdicts.push((format!("{name} {}", kind.as_str_name()), made.is_ok()));
            if let Ok(made) = made {
                setup.stop_and_remove(&made.into_inner().container_id).await;
            }
        }
        let mut plugin = setup.plugins.pop().unwrap();
        plugin.kill().unwrap();
        plugin.wait().unwrap();
        let gone = format!("an NRI plugin is gone plugin=\"50-{name}\"");
        until("the plugin to be gone", || setup.node.log().contains(&gone).then_some(())).unwrap();
    }
    setup.remove_pod(&id).await;
    verdicts
}

#[tokio::test(flavor = "multi_thread")]
async fn our_validator_judges_as_the_one_of_the_go_module() {
    let settings = ["reject_oci_hook", "reject_runtime_default_seccomp", "reject_namespace", "reject_sysctl"];
    let lines: Vec<_> = settings.iter().map(|setting| format!("{setting}_adjustment = true\n")).collect();
    let ours = format!("[plugins.\"io.containerd.nri.v1.nri\".default_validator]\nenable = true\n{}", lines.concat());
    let mut setup_ours = setup(&ours).await;
    let ours = verdicts(&mut setup_ours).await;
    setup_ours.clean();

    let mut setup_theirs = setup("").await;
    let validator = json!({
        "Enable": true, "RejectOCIHookAdjustment": true, "RejectRuntimeDefaultSeccompAdjustment": true,
        "RejectNamespaceAdjustment": true, "RejectSysctlAdjustment": true,
    });
    setup_theirs.plugin("00", "judge", json!({ "Validator": validator, "Events": "ValidateContainerAdjustment" }));
    let theirs = verdicts(&mut setup_theirs).await;
    setup_theirs.clean();

    assert_eq!(ours, theirs);
    let made: Vec<_> = ours.iter().filter(|(_, made)| *made).map(|(name, _)| name.as_str()).collect();
    assert_eq!(made, ["nothing RuntimeDefault", "nothing Unconfined", "seccomp Unconfined"]);
}

/// Installs a sample plugin for the daemon to start.
fn install(setup: &Setup, sample: &str, as_name: &str, config: &str) {
    let (plugins, configs) = (setup.node.path("nri-plugins"), setup.node.path("nri-conf.d"));
    fs::create_dir_all(&plugins).unwrap();
    fs::create_dir_all(&configs).unwrap();
    symlink(find(&format!("nri-{sample}")).unwrap(), plugins.join(as_name)).unwrap();
    if !config.is_empty() {
        fs::write(configs.join(format!("{as_name}.conf")), config).unwrap();
    }
}

/// Starts a sample plugin that connects.
fn connect(setup: &mut Setup, script: &str) {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).env("SOCKET", setup.node.path("nri.sock"));
    command.env("DIR", setup.node.path("."));
    for sample in ["hook-injector", "differ"] {
        command.env(sample.replace('-', "_"), find(&format!("nri-{sample}")).unwrap());
    }
    setup.plugins.push(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
}

/// A hook that leaves a file, in a folder of hooks that only the plugin sees.
fn hooks(dir: &Path) -> String {
    let hook = dir.join("hook.sh");
    fs::write(&hook, format!("#!/bin/sh\necho \"$0 $1\" >> {}\n", dir.join("hooked").display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let file = json!({
        "version": "1.0.0", "hook": { "path": hook, "args": ["hook.sh", "always"] }, "when": { "always": true },
        "stages": ["prestart"],
    });
    fs::write(dir.join("always.json"), file.to_string()).unwrap();
    "mount -t tmpfs none /etc/containers && mkdir -p /etc/containers/oci/hooks.d && \
     cp $DIR/always.json /etc/containers/oci/hooks.d && \
     exec $hook_injector -disableWatch -idx 40 -socket-path $SOCKET"
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_plugins_of_the_nri_project_run_unchanged() {
    const INSTALLED: [(&str, &str); 6] = [
        ("logger", "10-logger"),
        ("template", "15-template"),
        ("device-injector", "20-device-injector"),
        ("ulimit-adjuster", "30-ulimit-adjuster"),
        ("network-device-injector", "35-network-device-injector"),
        ("rdt", "36-rdt"),
    ];
    let all = INSTALLED.iter().map(|(sample, _)| *sample).chain(["hook-injector", "differ"]);
    let missing: Vec<_> = all.filter(|sample| find(&format!("nri-{sample}")).is_err()).collect();
    if !missing.is_empty() {
        eprintln!(
            "skipped: sample plugins {missing:?} are not built; hack/nri-samples builds them from a checkout of NRI"
        );
        return;
    }
    let mut setup = setup("").await;
    setup.node.stop().unwrap();
    let log = setup.node.path("logger.log");
    for (sample, name) in INSTALLED {
        let config = match sample {
            "logger" => format!("logFile: {}\naddEnv: LOGGED\nevents: [all]\n", log.display()),
            "template" => "cfgParam1: value\n".to_owned(),
            _ => String::new(),
        };
        install(&setup, sample, name, &config);
    }
    setup.node.launch().unwrap();
    setup.runtime = setup.node.cri().await.unwrap().0;
    let script = hooks(&setup.node.path("."));
    connect(&mut setup, &script);
    connect(&mut setup, "exec $differ -indices 05,45 -log-file $DIR/differ.log -socket-path $SOCKET");
    for (index, name) in [("40", "nri-hook-injector"), ("05", "nri-differ"), ("45", "nri-differ")] {
        until(name, || (setup.ready(index, name) > 0).then_some(())).unwrap();
    }
    for (_, name) in INSTALLED {
        let (index, name) = name.split_once('-').unwrap();
        assert_eq!(setup.ready(index, name), 1, "{name}");
    }

    let mut pod = setup.pod("samples");
    let device = "- path: /dev/injected\n  type: c\n  major: 1\n  minor: 3\n";
    let limit = "- type: RLIMIT_NOFILE\n  hard: 333\n  soft: 222\n";
    pod.annotations = BTreeMap::from([
        ("devices.noderesource.dev/container.main".to_owned(), device.to_owned()),
        ("ulimits.noderesource.dev/container.main".to_owned(), limit.to_owned()),
    ]);
    let id = setup.run(&pod).await;
    let container = setup.start(&id, &pod, "main").await;
    assert_eq!(setup.open_files(&container).await, "222");
    let said = setup.exec(&container, "echo x > /dev/injected && echo injected; echo $LOGGED").await;
    assert!(said.starts_with("injected\nlogger-pid-"), "{said}");
    let hooked = fs::read_to_string(setup.node.path("hooked")).unwrap();
    assert!(hooked.contains("hook.sh always"), "{hooked}");
    setup.stop_and_remove(&container).await;
    setup.remove_pod(&id).await;
    let logged = fs::read_to_string(&log).unwrap();
    for event in ["RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "RemovePodSandbox"] {
        assert!(logged.contains(event), "the logger was not told of {event}");
    }
    let differ = fs::read_to_string(setup.node.path("differ.log")).unwrap();
    assert!(differ.contains("LOGGED"), "the differ did not see what the others changed: {differ}");
    setup.node.stop().unwrap();
    setup.clean();
}
