//! Where a stream of ttrpc messages is cut into frames of the multiplexer.
//!
//! The Go implementation reads a whole frame of the multiplexer at once, into whatever room its ttrpc reader offers:
//! 4096 bytes at the beginning of a message, and what is missing of the message after that. A frame that is longer than
//! the room ends the connection; a connection also ends when 256 frames wait. So a message, once it is whole, is sent as
//! one frame of at most 4096 bytes and one of the rest, and no frame holds bytes of two messages.

use kevel_ttrpc::frame::HEADER_LEN;

/// The room for the beginning of a message.
const FIRST: usize = 4096;

/// The length of the message at the beginning of `bytes`, with its header; `None` while that cannot be told.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [a, b, c, d, ..] if bytes.len() >= HEADER_LEN => {
            Some(HEADER_LEN + u32::from_be_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => None,
    }
}

/// The frames of a whole message.
pub(super) fn cut(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = message.split_at(FIRST.min(message.len()));
    [first, rest].into_iter().filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use kevel_ttrpc::frame::{Flags, Kind, encode_bytes};

    use super::*;

    #[test]
    fn messages_are_cut_as_the_go_reader_wants_them() {
        for (data, expected) in [
            (0, vec![10]),
            (3, vec![13]),
            (4086, vec![4096]),
            (4087, vec![4096, 1]),
            (4 << 20, vec![4096, (4 << 20) + 10 - 4096]),
        ] {
            let message = encode_bytes(1, Kind::Request, Flags::NONE, &vec![7; data]).unwrap();
            assert_eq!(length(&message), Some(data + 10));
            assert_eq!(length(&message[..9]), None);
            assert_eq!(cut(&message).map(<[u8]>::len).collect::<Vec<_>>(), expected);
            assert_eq!(cut(&message).collect::<Vec<_>>().concat(), message);
        }
    }
}
