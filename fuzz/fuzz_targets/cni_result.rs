//! What CNI plugins answer: any bytes are a result or an error, and a result has a form in each version that is read back.
#![no_main]

use kevel_cri_network::{SpecVersion, result::Answer};
use libfuzzer_sys::fuzz_target;

const VERSIONS: [&str; 5] = ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fuzz_target!(|input: (u8, &[u8])| {
    let (configured, bytes) = input;
    let version = |index: usize| SpecVersion::parse(VERSIONS[index % VERSIONS.len()]).expect("a version");
    let Ok(answer) = Answer::parse(bytes, version(configured.into())) else { return };
    for index in 0..VERSIONS.len() {
        let written = answer.in_version(version(index));
        Answer::from_map(written, version(index)).expect("it was just written");
    }
});
