//! AppArmor: the default profile is loaded and confines, one of the node's by name does, and what is not there is refused.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{fs, path::Path};

use kevel_e2e::{Client, Node, Registry, find, run, skip_without};
use kevel_proto::runtime::v1 as cri;
use tonic::Code;

const DEFAULT: &str = "cri-containerd.apparmor.d (enforce)";
/// A profile of the node's administrator.
const OWN: &str = "kevel-test-own";
/// Prints the profile of the process that runs it.
const WHICH: &str = "cat /proc/self/attr/current";
/// What only a profile can forbid a container that has the capability.
const MOUNT: &str = "mkdir -p /mnt && mount -t tmpfs none /mnt";

fn is_on() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    enabled.trim() == "Y" && Path::new("/sys/kernel/security/apparmor").exists()
}

fn load(dir: &Path) {
    let text = format!(
        "profile {OWN} flags=(attach_disconnected) {{\n file,\n network,\n capability,\n mount,\n signal,\n \
        deny /secret rw,\n}}\n"
    );
    let file = dir.join("profile");
    fs::write(&file, text).unwrap();
    let arguments = ["--replace", "--skip-cache", file.to_str().unwrap()];
    run(&find("apparmor_parser").unwrap(), &arguments).unwrap().ok().unwrap();
}

/// A container that may mount, as far as capabilities go.
fn container(pods: &Client, name: &str, profile: Option<cri::SecurityProfile>, old: &str) -> cri::ContainerConfig {
    let mut config = pods.container(name, "trap 'exit 7' TERM; while :; do sleep 0.1; done");
    let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.capabilities.get_or_insert_default().add_capabilities = vec!["SYS_ADMIN".to_owned()];
    // Processes of its own: the pod's first one, which does nothing, is not confined.
    security.namespace_options.get_or_insert_default().pid = cri::NamespaceMode::Container as i32;
    security.apparmor = profile;
    #[expect(deprecated, reason = "older kubelets say it here")]
    security.apparmor_profile.push_str(old);
    config
}

fn profile(kind: cri::security_profile::ProfileType, name: &str) -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile { profile_type: kind as i32, localhost_ref: name.to_owned() })
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_confine_containers() {
    use cri::security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
    if skip_without("apparmor", is_on()) {
        return;
    }
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let options = registry.node_options();
    let node = Node::start(&options).unwrap();
    load(&node.path(""));
    let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
    let mut sandbox = pods.config("confined");
    sandbox.linux.as_mut().unwrap().security_context.get_or_insert_default().privileged = true;
    let pod = pods.run(sandbox, "").await.unwrap();

    let own = format!("{OWN} (enforce)");
    for (name, config, want, mounts) in [
        ("nothing", container(&pods, "nothing", None, ""), DEFAULT, false),
        ("default", container(&pods, "default", profile(RuntimeDefault, ""), ""), DEFAULT, false),
        ("old", container(&pods, "old", None, &format!("localhost/{OWN}")), &own, true),
        ("named", container(&pods, "named", profile(Localhost, OWN), ""), &own, true),
        ("free", container(&pods, "free", profile(Unconfined, ""), ""), "unconfined", true),
    ] {
        let id = pods.create(&pod, "confined", config).await.unwrap();
        pods.start(&id, None).await.unwrap();
        let (code, said) = pods.exec(&id, &format!("{WHICH}; cat /proc/1/attr/current")).await.unwrap();
        assert_eq!((code, said.lines().collect::<Vec<_>>()), (0, vec![want, want]), "{name}");
        let (code, said) = pods.exec(&id, MOUNT).await.unwrap();
        assert_eq!(code == 0, mounts, "{name}: {said}");
        let (code, said) = pods.exec(&id, "echo x > /secret").await.unwrap();
        assert_eq!(code == 0, want != own, "{name}: {said}");
        // Whoever may signal: itself, and the runtime.
        let (code, said) = pods.exec(&id, "sleep 100 & kill $!; wait $!; echo $?").await.unwrap();
        assert_eq!((code, said.lines().next()), (0, Some("143")), "{name}");
        pods.stop(&id, 60).await.unwrap();
        assert_eq!(pods.status(&id).await.unwrap().exit_code, 7, "{name}: its handler of SIGTERM ran");
    }

    // A privileged one is confined by name only.
    let mut config = container(&pods, "mighty", None, "");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let id = pods.create(&pod, "confined", config).await.unwrap();
    pods.start(&id, None).await.unwrap();
    assert_eq!(pods.exec(&id, WHICH).await.unwrap(), (0, "unconfined".to_owned()));

    // What is not loaded is refused when the container is made.
    for config in [
        container(&pods, "gone", profile(Localhost, "kevel-test-gone"), ""),
        container(&pods, "gone", None, "localhost/kevel-test-gone"),
    ] {
        let refused = pods.create(&pod, "confined", config).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert!(refused.message().contains("\"kevel-test-gone\" is not loaded"), "{refused:?}");
    }
    let refused = pods.create(&pod, "confined", container(&pods, "bad", profile(Localhost, ""), "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    pods.stop_pod(&pod).await.unwrap();
    pods.remove_pod(&pod).await.unwrap();
    node.remove_parent_cgroup();
    node.assert_no_leaks().unwrap();
}
