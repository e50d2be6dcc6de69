//! `hosts.toml`: any text is hosts or an error, and hosts have addresses that can be asked.
#![no_main]

use std::path::Path;

use kevel_registry::hosts::file::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(hosts) = parse(text, Path::new("/certs.d/docker.io/hosts.toml"), "docker.io", false) else { return };
    assert!(!hosts.is_empty(), "the registry itself is always one");
    for host in hosts {
        let url = host.url();
        assert!(url.starts_with("http://") || url.starts_with("https://"), "{url:?}");
        let _ = host.needs_namespace("docker.io");
    }
});
