//! The Helm chart: what it renders, what it refuses, and its installer on a node made of a folder and a fake systemd.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use kevel_e2e::{Output, find, run};

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/kevel")
}

fn helm(arguments: &[&str]) -> Output {
    run(&find("helm").unwrap(), arguments).unwrap()
}

fn template(arguments: &[&str]) -> Output {
    let chart = chart();
    let cluster = ["--kube-version", "1.36.0", "--api-versions", "monitoring.coreos.com/v1"];
    let base = ["template", "kevel", chart.to_str().unwrap(), "--namespace", "kevel-system"];
    helm(&[&base, cluster.as_slice(), arguments].concat())
}

#[test]
fn renders_what_it_rendered_before() {
    let chart = chart();
    let full = chart.join("ci/full-values.yaml");
    for (name, values) in [("default", &[] as &[&str]), ("full", &["--values", full.to_str().unwrap()])] {
        let lint = helm(&[&["lint", "--strict", chart.to_str().unwrap()], values].concat());
        assert_eq!(lint.code, 0, "{lint:?}");
        let rendered = template(values).ok().unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/chart/{name}.yaml"));
        if fs::read_to_string(&golden).unwrap_or_default() != rendered {
            let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
            fs::write(&new, &rendered).unwrap();
            panic!("the chart renders anew; look, then: cp {} {}", new.display(), golden.display());
        }
    }
}

/// The configuration of a rendered chart is one that the daemon takes without a warning.
#[test]
fn renders_a_configuration_that_the_daemon_takes() {
    let full = chart().join("ci/full-values.yaml");
    for values in [&[] as &[&str], &["--values", full.to_str().unwrap()]] {
        let rendered = template(&[values, &["--show-only", "templates/configmap.yaml"]].concat()).ok().unwrap();
        let config = block(&rendered, "config.toml");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, &config).unwrap();
        let keveld = find_keveld();
        let dump = run(&keveld, &["--config", file.to_str().unwrap(), "config", "dump"]).unwrap();
        assert_eq!((dump.code, dump.stderr.as_str()), (0, ""), "{config}");
        assert!(dump.stdout.contains("io.containerd.runc.v2"), "{}", dump.stdout);
    }
}

#[test]
fn refuses_values_that_are_wrong() {
    let check = |set: &str, want: &str| {
        let said = template(&["--set", set]);
        assert_ne!(said.code, 0, "{set} was taken");
        assert!(said.stderr.contains(want), "{set}: {}", said.stderr);
    };
    check("instaler.action=install", "instaler");
    check("installer.action=remove", "/installer/action");
    check("config.root=relative", "/config/root");
    check("metrics.port=0", "/metrics/port");
    check("handlers.Bad_Name.config.runtime_type=x", "Bad_Name");
    check("handlers.x.config.snapshotter=y", "runtime_type");
    check("defaultHandler=none", "defaultHandler: \"none\" is not one of handlers");
    check("kubelet.configDir=etc", "/kubelet/configDir");
}

/// The text of a block scalar in a rendered ConfigMap.
fn block(rendered: &str, key: &str) -> String {
    let start = rendered.find(&format!("  {key}: |\n")).unwrap();
    let lines = rendered[start..].lines().skip(1).take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| line.strip_prefix("    ").unwrap_or_default().to_owned() + "\n").collect()
}

fn find_keveld() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("keveld")
}

/// A node: a folder as its root, and programs that play its systemd.
struct Host {
    dir: tempfile::TempDir,
}

/// Notes what it is asked; whether a unit starts is said by files named after what refuses to.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>"$(dirname "$0")/systemctl.log"
here=$(dirname "$0")
for unit; do :; done
case $1 in
  restart)
    release=$(cat "$here/host/opt/kevel/current/bin/keveld" 2>/dev/null)
    case $unit in
      kevel.service) case $release in *broken*) rm -f "$here/active.$unit"; exit 1 ;; esac ;;
      *) if [ -e "$here/kubelet-refuses" ] && [ -e "$here/host/etc/kubelet.d/50-kevel.conf" ]; then exit 1; fi ;;
    esac
    touch "$here/active.$unit" ;;
  disable) rm -f "$here/active.$unit" ;;
  is-active) test -e "$here/active.$unit" ;;
esac
"#;

/// Runs a program of the node with its own paths.
const CHROOT: &str = r#"#!/bin/sh
root=$1
shift
for argument; do
  shift
  case $argument in /opt/*) argument=$root$argument ;; esac
  set -- "$@" "$argument"
done
exec "$@"
"#;

impl Host {
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        for folder in ["host/etc/systemd/system", "host/etc/kubelet.d", "chart", "payload/bin"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        host.program("systemctl", SYSTEMCTL);
        host.program("chroot", CHROOT);
        fs::copy(chart().join("files/install"), host.path("install")).unwrap();
        fs::write(host.path("chart/kevel.service"), "[Service]\n").unwrap();
        host.release("one", "good = true\n");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the image and the chart bring: a daemon of that name, which refuses configurations with the word `wrong`.
    fn release(&self, name: &str, config: &str) {
        let daemon = format!("#!/bin/sh\n# {name}\nif grep -q wrong \"$2\"; then echo 'wrong: no' >&2; exit 1; fi\n");
        self.program("payload/bin/keveld", &daemon);
        fs::write(self.path("chart/config.toml"), config).unwrap();
    }

    fn run(&self, action: &str) -> (bool, String) {
        let said = Command::new("sh")
            .arg(self.path("install"))
            .arg(action)
            .env("HOST", self.path("host"))
            .env("PAYLOAD", self.path("payload"))
            .env("CHART", self.path("chart"))
            .env("DONE", self.path("done"))
            .env("SYSTEMCTL", self.path("systemctl"))
            .env("CHROOT", self.path("chroot"))
            .env("KUBELET_CONFIG_DIR", "/etc/kubelet.d")
            .output()
            .unwrap();
        assert_eq!(said.status.success(), self.path("done").exists(), "{said:?}");
        (said.status.success(), String::from_utf8_lossy(&said.stderr).into_owned())
    }

    /// The daemon that runs.
    fn current(&self) -> String {
        let text = fs::read_to_string(self.path("host/opt/kevel/current/bin/keveld")).unwrap_or_default();
        text.lines().nth(1).unwrap_or_default().trim_start_matches("# ").to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("systemctl.log")).unwrap_or_default()
    }

    fn releases(&self) -> usize {
        fs::read_dir(self.path("host/opt/kevel/releases")).unwrap().count()
    }
}

#[test]
fn the_installer_installs_upgrades_and_does_nothing_twice() {
    let host = Host::new();
    assert!(host.run("install").0);
    assert_eq!(host.current(), "one");
    assert!(host.path("active.kevel.service").exists() && host.path("host/etc/systemd/system/kevel.service").exists());
    let drop_in = fs::read_to_string(host.path("host/etc/kubelet.d/50-kevel.conf")).unwrap();
    assert!(drop_in.ends_with("containerRuntimeEndpoint: unix:///run/kevel/kevel.sock\n"), "{drop_in}");
    let restarts = |host: &Host| host.log().lines().filter(|line| line.starts_with("restart")).count();
    assert_eq!(restarts(&host), 2);
    assert!(host.run("install").0);
    assert_eq!(restarts(&host), 2, "a release that runs is left alone");
    for (name, config) in [("two", "good = true\n"), ("three", "good = true\n"), ("three", "good = 3\n")] {
        host.release(name, config);
        assert!(host.run("install").0);
        assert_eq!(host.current(), name);
        assert_eq!(host.releases(), 2, "the one that runs and the one before");
    }
}

#[test]
fn a_release_that_is_refused_or_does_not_start_makes_way_for_the_one_before() {
    let host = Host::new();
    assert!(host.run("install").0);
    host.release("two", "wrong = true\n");
    let (done, said) = host.run("install");
    assert!(!done && said.contains("keveld refuses the configuration"), "{said}");
    assert_eq!((host.current().as_str(), host.releases()), ("one", 1));
    host.release("broken", "good = true\n");
    let (done, said) = host.run("install");
    assert!(!done && said.contains("does not start; the node is back at releases/"), "{said}");
    assert_eq!(host.current(), "one");
    assert!(host.path("active.kevel.service").exists());
}

#[test]
fn a_first_release_that_does_not_start_leaves_nothing() {
    let host = Host::new();
    host.release("broken", "good = true\n");
    assert!(!host.run("install").0);
    assert!(!host.path("host/opt/kevel/current").exists());
    assert!(!host.path("host/etc/systemd/system/kevel.service").exists());
    assert!(!host.path("host/etc/kubelet.d/50-kevel.conf").exists());
}

#[test]
fn kubelet_gets_its_configuration_back() {
    let host = Host::new();
    fs::write(host.path("kubelet-refuses"), "").unwrap();
    let (done, said) = host.run("install");
    assert!(!done && said.contains("has its old configuration back"), "{said}");
    assert!(!host.path("host/etc/kubelet.d/50-kevel.conf").exists());
    assert!(!host.path("host/opt/kevel/current").exists());
}

#[test]
fn uninstalling_takes_everything_but_the_state() {
    let host = Host::new();
    assert!(host.run("install").0);
    fs::create_dir_all(host.path("host/var/lib/kevel")).unwrap();
    assert!(host.run("uninstall").0);
    let gone = ["opt/kevel", "etc/systemd/system/kevel.service", "etc/kubelet.d/50-kevel.conf"];
    for path in gone {
        assert!(!host.path("host").join(path).exists(), "{path}");
    }
    assert!(host.path("host/var/lib/kevel").exists());
    assert!(host.run("uninstall").0, "what is gone can be uninstalled again");
}
