//! CNI network configurations: any bytes are a list or an error, and a list is read back as it was written.
#![no_main]

use kevel_cri_network::conf::NetworkList as List;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for list in [List::parse(bytes), List::parse_single(bytes)].into_iter().flatten() {
        let again = List::parse(&list.to_bytes()).expect("it was just written");
        assert_eq!(format!("{again:?}"), format!("{list:?}"));
    }
});
