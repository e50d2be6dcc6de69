//! The SPDY frame decoder: any bytes in any pieces mean the same frames, and frames that were read can be written and
//! read again.
#![no_main]

use bytes::{BufMut, BytesMut};
use kevel_cri_streaming::spdy::{Decoder, Encoder, Fault, Frame, MAX_PIECE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let (whole, fault) = decode(bytes, bytes.len().max(1));
    let (pieces, same) = decode(bytes, usize::from(size).max(1));
    assert_eq!(fault, same, "the size of the pieces matters");
    assert_eq!(joined(&whole), joined(&pieces), "the size of the pieces matters");
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    whole.iter().for_each(|frame| encoder.encode(frame, &mut out));
    let (again, fault) = decode(&out, out.len().max(1));
    assert_eq!(fault, None);
    assert_eq!(joined(&again), joined(&whole));
});

/// What is found until the bytes or their sense end.
fn decode(bytes: &[u8], size: usize) -> (Vec<Frame>, Option<Fault>) {
    let (mut decoder, mut buffer, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.put_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    assert!(!matches!(&frame, Frame::Data { data, .. } if data.len() > MAX_PIECE));
                    found.push(frame);
                }
                Ok(None) => break,
                Err(fault) => return (found, Some(fault)),
            }
        }
    }
    (found, None)
}

/// The same with neighbouring pieces of data put together, each as stream, end and bytes.
fn joined(frames: &[Frame]) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for frame in frames {
        match (all.last_mut(), frame) {
            (Some(Frame::Data { stream, fin: ended @ false, data }), Frame::Data { stream: same, fin, data: more })
                if stream == same =>
            {
                *data = [&data[..], more].concat().into();
                *ended = *fin;
            }
            (_, frame) => all.push(frame.clone()),
        }
    }
    all
}
