//! Indexes, manifests and image configs: any bytes are one or an error, and none is an index and a manifest at once.
#![no_main]

use kevel_transfer::fuzzing::documents;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let [manifests, layers, _] = documents(body);
    assert!(manifests.is_none() || layers.is_none(), "two images under one digest");
});
