//! CDI specs: any file is devices or an error, and each device that is found can be put into a runtime spec or says why not.
#![no_main]

use std::{fs, sync::LazyLock};

use kevel_cri_cdi::Registry;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));

fuzz_target!(|input: (bool, &[u8])| {
    let (yaml, bytes) = input;
    let path = DIR.path().join(if yaml { "spec.yaml" } else { "spec.json" });
    fs::write(&path, bytes).expect("a file");
    let registry = Registry::read(&[DIR.path()]).expect("the directory is there");
    let devices: Vec<_> = registry.devices().cloned().collect();
    assert!(registry.bad().is_empty() || devices.is_empty(), "one file is good or bad");
    let mut spec = json!({ "process": { "env": ["PATH=/bin"] }, "linux": {}, "mounts": [] });
    if registry.inject(&mut spec, &devices).is_ok() {
        assert!(spec["process"]["env"].is_array() && spec["mounts"].is_array(), "{spec}");
    }
    fs::remove_file(&path).expect("it is there");
});
