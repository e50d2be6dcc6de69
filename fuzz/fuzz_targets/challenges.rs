//! `WWW-Authenticate`: any header is a list of challenges.
#![no_main]

use kevel_registry::parse_challenges;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    let found = parse_challenges(header);
    assert!(found.len() <= header.len());
});
