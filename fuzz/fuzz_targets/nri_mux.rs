//! NRI's multiplexer: any bytes in any pieces arrive the same.
#![no_main]

use kevel_cri_nri::fuzzing::apart;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (size, bytes) = input;
    let (whole, sound) = apart(bytes, bytes.len());
    let (pieces, same) = apart(bytes, size.into());
    assert_eq!((&whole, sound.is_ok()), (&pieces, same.is_ok()), "the size of the pieces matters");
    assert!(whole.iter().map(Vec::len).sum::<usize>() <= bytes.len());
});
