//! Specs in directories, injected into runtime specs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf};

use kevel_cri_cdi::{Device, Registry, Result};
use serde_json::{Value, json};

struct Dirs {
    dir: tempfile::TempDir,
}

impl Dirs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["static", "dynamic"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn paths(&self) -> [PathBuf; 3] {
        ["static", "dynamic", "missing"].map(|name| self.dir.path().join(name))
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    fn inject(&self, spec: Value, devices: &[&str]) -> Result<Value> {
        let devices: Vec<Device> = devices.iter().map(|name| Device::parse(name).unwrap()).collect();
        let mut spec = spec;
        Registry::read(&self.paths())?.inject(&mut spec, &devices)?;
        Ok(spec)
    }

    fn refused(&self, device: &str) -> String {
        self.inject(json!({}), &[device]).unwrap_err().to_string()
    }
}

fn spec(kind: &str, device: &str, edits: &Value) -> String {
    json!({ "cdiVersion": "1.0.0", "kind": kind, "devices": [{ "name": device, "containerEdits": edits }] }).to_string()
}

/// What CDI's own implementation makes of this spec was written down by hand from its documentation.
#[test]
fn every_edit_is_made() {
    let dirs = Dirs::new();
    dirs.write(
        "static/vendor.yaml",
        r#"
cdiVersion: "1.1.0"
kind: vendor.com/gpu
containerEdits:
  env: [ALL=yes]
  hooks:
  - {hookName: createContainer, path: /bin/hook, args: [hook, a], env: [H=1], timeout: 5}
devices:
- name: zero
  containerEdits:
    env: ["PATH=/gpu", "GPU=0"]
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/null, permissions: rw, fileMode: 384, uid: 7}
    - {path: /dev/gpu1, type: b, major: 200, minor: 3}
    mounts:
    - {hostPath: /usr/lib/gpu, containerPath: /lib/gpu, options: [ro, nosuid, bind]}
    - {hostPath: /run/gpu, containerPath: /gpu}
    netDevices:
    - {hostInterfaceName: eth9, name: gpu0}
    intelRdt: {closID: gpus, enableMonitoring: true}
    additionalGids: [44, 0, 5]
- name: one
  containerEdits: {env: [GPU=1]}
"#,
    );
    let base = json!({
        "process": { "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 1000, "additionalGids": [5] } },
        "mounts": [{ "destination": "/lib/gpu", "source": "/old" }, { "destination": "/a/b/c", "source": "/x" }],
        "linux": { "devices": [{ "path": "/dev/gpu0", "type": "c" }], "resources": { "devices": [{ "allow": false }] } },
    });
    let got = dirs.inject(base, &["vendor.com/gpu=zero", "vendor.com/gpu=one"]).unwrap();
    let want = json!({
        "process": {
            "env": ["PATH=/gpu", "ALL=yes", "GPU=1"],
            "user": { "uid": 0, "gid": 1000, "additionalGids": [5, 44] },
        },
        "mounts": [
            { "destination": "/gpu", "source": "/run/gpu" },
            { "destination": "/lib/gpu", "source": "/usr/lib/gpu", "options": ["ro", "nosuid", "bind"] },
            { "destination": "/a/b/c", "source": "/x" },
        ],
        "linux": {
            "devices": [
                { "path": "/dev/gpu0", "type": "c", "major": 1, "minor": 3, "fileMode": 384, "uid": 7, "gid": 1000 },
                { "path": "/dev/gpu1", "type": "b", "major": 200, "minor": 3, "gid": 1000 },
            ],
            "resources": { "devices": [
                { "allow": false },
                { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw" },
                { "allow": true, "type": "b", "major": 200, "minor": 3, "access": "rwm" },
            ] },
            "netDevices": { "eth9": { "name": "gpu0" } },
            "intelRdt": { "closID": "gpus", "enableMonitoring": true },
        },
        "hooks": { "createContainer": [
            { "path": "/bin/hook", "args": ["hook", "a"], "env": ["H=1"], "timeout": 5 },
        ] },
    });
    assert_eq!(got, want, "{got:#}");
}

#[test]
fn no_device_changes_nothing() {
    let base = json!({ "mounts": [{ "destination": "/b/c" }, { "destination": "/a" }] });
    assert_eq!(Dirs::new().inject(base.clone(), &[]).unwrap(), base);
}

#[test]
fn later_directories_win_and_equals_conflict() {
    let dirs = Dirs::new();
    let env = |value: &str| json!({ "env": [format!("FROM={value}")] });
    dirs.write("static/a.json", spec("v/c", "d", &env("static")));
    dirs.write("static/b.json", spec("v/c", "twice", &env("b")));
    dirs.write("static/c.json", spec("v/c", "twice", &env("c")));
    dirs.write("dynamic/a.json", spec("v/c", "d", &env("dynamic")));
    dirs.write("dynamic/a.txt", "no spec");
    assert_eq!(dirs.inject(json!({}), &["v/c=d"]).unwrap()["process"]["env"], json!(["FROM=dynamic"]));
    let error = dirs.refused("v/c=twice");
    assert!(
        error.starts_with("CDI device v/c=twice: in both ") && error.contains("b.json") && error.contains("c.json")
    );
    dirs.write("dynamic/b.json", spec("v/c", "twice", &env("dynamic")));
    assert_eq!(dirs.inject(json!({}), &["v/c=twice"]).unwrap()["process"]["env"], json!(["FROM=dynamic"]));
}

#[test]
fn errors_name_the_device() {
    let dirs = Dirs::new();
    assert_eq!(dirs.refused("v/c=d"), "CDI device v/c=d: unknown; no spec describes any device");
    dirs.write("static/a.json", spec("v/c", "x", &json!({ "deviceNodes": [{ "path": "/nowhere/at/all" }] })));
    dirs.write("static/bad.json", "{");
    let error = dirs.refused("v/c=d");
    assert!(error.starts_with("CDI device v/c=d: unknown; 1 are known, such as v/c=x; "), "{error}");
    assert!(error.contains("bad.json is no spec: "), "{error}");
    let error = dirs.refused("v/c=x");
    assert!(error.starts_with("CDI device v/c=x: device node \"/nowhere/at/all\": "), "{error}");
    dirs.write("static/a.json", spec("v/c", "x", &json!({ "deviceNodes": [{ "path": "/dev/null", "type": "b" }] })));
    assert_eq!(dirs.refused("v/c=x"), "CDI device v/c=x: \"/dev/null\" is of type \"c\", not \"b\"");
    dirs.write("static/a.json", spec("v/c", "x", &json!({ "env": ["A=b"] })));
    let error = dirs.inject(json!({ "process": [] }), &["v/c=x"]).unwrap_err().to_string();
    assert_eq!(error, "runtime spec: process is not an object");
}
