//! Where a stream of ttrpc frames is cut into frames of the multiplexer.
//!
//! The Go implementation reads a whole frame of the multiplexer at once, into whatever room its ttrpc reader offers:
//! 4096 bytes at the beginning of a message, and what is missing of the message after that. A frame that is longer than
//! the room ends the connection; a connection also ends when 256 frames wait. So a message is sent as one frame of at
//! most 4096 bytes, and the rest of it in as few as possible, none of which holds bytes of two messages.

use kevel_ttrpc::frame::HEADER_LEN;

/// The room for the beginning of a message.
const FIRST: usize = 4096;

/// Follows a stream of ttrpc frames.
#[derive(Debug, Default)]
pub(super) struct Boundaries {
    /// The header of the message, as far as it was seen.
    header: [u8; HEADER_LEN],
    seen: usize,
    /// Bytes of the message after its header that were not seen.
    left: usize,
    /// Whether the message's first frame was sent.
    begun: bool,
}

impl Boundaries {
    /// How many bytes of `bytes`, which must not be empty, make the next frame.
    pub(super) fn next(&mut self, bytes: &[u8]) -> usize {
        let header = (HEADER_LEN - self.seen).min(bytes.len());
        self.header[self.seen..self.seen + header].copy_from_slice(&bytes[..header]);
        self.seen += header;
        if self.seen < HEADER_LEN {
            return header;
        }
        if header > 0 {
            let [a, b, c, d, ..] = self.header;
            self.left = u32::from_be_bytes([a, b, c, d]) as usize;
        }
        let room = if self.begun { usize::MAX } else { FIRST };
        let data = self.left.min(bytes.len() - header).min(room - header);
        self.left -= data;
        self.begun = true;
        if self.left == 0 {
            *self = Self::default();
        }
        header + data
    }
}

#[cfg(test)]
mod tests {
    use kevel_ttrpc::frame::{Flags, Kind, encode_bytes};
    use proptest::prelude::*;

    use super::*;

    fn cut(bytes: &[u8], boundaries: &mut Boundaries) -> Vec<usize> {
        let (mut lengths, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let length = boundaries.next(rest);
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }

    #[test]
    fn messages_are_cut_as_the_go_reader_wants_them() {
        let message = |length: usize| encode_bytes(1, Kind::Request, Flags::NONE, &vec![7; length]).unwrap().to_vec();
        for (messages, expected) in [
            (vec![0], vec![10]),
            (vec![3, 0], vec![13, 10]),
            (vec![4086, 5], vec![4096, 15]),
            (vec![4087], vec![4096, 1]),
            (vec![100_000, 1], vec![4096, 95_914, 11]),
        ] {
            let bytes: Vec<u8> = messages.iter().flat_map(|length| message(*length)).collect();
            assert_eq!(cut(&bytes, &mut Boundaries::default()), expected, "{messages:?}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_has_bytes_of_two_messages_and_none_is_larger_than_its_room(
            lengths in proptest::collection::vec(0usize..12_000, 1..6),
            size in 1usize..20_000,
        ) {
            let messages: Vec<Vec<u8>> = lengths
                .iter()
                .map(|length| encode_bytes(1, Kind::Data, Flags::NONE, &vec![7; *length]).unwrap().to_vec())
                .collect();
            let bytes = messages.concat();
            let mut boundaries = Boundaries::default();
            let mut sizes = messages.iter().map(Vec::len);
            let (mut done, mut whole) = (0, sizes.next().unwrap());
            for length in bytes.chunks(size).flat_map(|chunk| cut(chunk, &mut boundaries)) {
                if done == whole {
                    (done, whole) = (0, sizes.next().unwrap());
                }
                prop_assert!(length > 0);
                // Before the header is whole the reader offers its buffer; after that, also the rest of the message.
                let room = if done < HEADER_LEN { FIRST } else { (whole - done).max(FIRST) };
                prop_assert!(length <= room);
                done += length;
                prop_assert!(done <= whole);
            }
            prop_assert_eq!(done, whole);
            prop_assert_eq!(sizes.next(), None);
        }
    }
}
