//! Messages of the streaming protocols over WebSockets: none upsets the server, and what is sent is understood.
#![no_main]

use kevel_cri_streaming::fuzzing::{carry, message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, bool, u8, &[u8])| {
    let (base64, closes, channel, bytes) = input;
    if let Some((_, Some(data))) = message(base64, closes, bytes) {
        assert!(data.len() < bytes.len());
    }
    // 255 is the close message, and digits are what base64 has for channels.
    let channel = channel % if base64 { 10 } else { 255 };
    assert_eq!(message(base64, closes, &carry(base64, channel, bytes)), Some((channel, Some(bytes.to_vec()))));
});
