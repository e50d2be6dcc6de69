//! CRI log lines: the bytes of a stream are the pieces joined, with a newline after each full line, however they came.
#![no_main]

use kevel_cri_logs::fuzzing::cut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (size, limit, bytes) = input;
    let log = cut(bytes, size.into(), limit.into());
    assert_eq!(log, cut(bytes, bytes.len(), limit.into()), "the size of the pieces matters");
    let mut joined = Vec::new();
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").expect("every line ends");
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tag), Some(data)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            panic!("a line has four fields");
        };
        assert!(time.starts_with(b"1970-01-01T") && stream == b"stdout");
        assert!(limit == 0 || data.len() <= usize::from(limit));
        joined.extend_from_slice(data);
        match tag {
            b"F" => joined.push(b'\n'),
            b"P" => assert!(!data.is_empty(), "an empty piece"),
            _ => panic!("a tag that is not known"),
        }
    }
    assert_eq!(joined, bytes);
});
