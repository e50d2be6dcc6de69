//! The ttrpc frame decoder: any bytes in any pieces, the same frames, and each frame encodes back to what was read.
#![no_main]

use bytes::{BufMut, BytesMut};
use kevel_ttrpc::frame::{Decoded, Decoder, HEADER_LEN, MAX_MESSAGE, encode_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, usize::from(size).max(1));
    assert_eq!(whole, pieces, "the size of the pieces matters");
    let mut rest = bytes;
    for decoded in whole {
        match decoded {
            Decoded::Frame(frame) => {
                let header = frame.header;
                let encoded = encode_bytes(header.stream, header.kind, header.flags, &frame.data).expect("it was read");
                assert_eq!(encoded[..], rest[..encoded.len()]);
                rest = &rest[encoded.len()..];
            }
            Decoded::Oversize(header) => {
                assert!(header.length as usize > MAX_MESSAGE);
                rest = rest.get(HEADER_LEN + header.length as usize..).unwrap_or_default();
            }
        }
    }
});

/// What is found until the bytes or their sense end.
fn decode(bytes: &[u8], size: usize) -> Vec<Decoded> {
    let (mut decoder, mut buffer, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.put_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(decoded)) => found.push(decoded),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}
