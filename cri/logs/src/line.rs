//! Cutting a stream of bytes into log lines: `<time> <stream> <tag> <bytes>\n`. No I/O.
//!
//! A line of the container that ends in a newline has the tag `F`. One longer than the limit, or one that the stream
//! ends in the middle of, comes in pieces with the tag `P`. So the bytes of a stream are the pieces joined, with a
//! newline after each `F`; nothing else is changed (containerd drops a carriage return before the newline, here it
//! stays).

use std::time::SystemTime;

use crate::time;

/// Which stream a byte came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output; of a terminal, everything.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Stdout => b"stdout",
            Self::Stderr => b"stderr",
        }
    }
}

/// Cuts one stream.
#[derive(Debug)]
pub(crate) struct Cutter {
    stream: Stream,
    limit: usize,
    /// The start of a line whose end has not come: never longer than the limit.
    pending: Vec<u8>,
}

/// Without a limit a container could make the daemon keep any amount: this is the limit then.
const NO_LIMIT: usize = 16 << 20;

impl Cutter {
    /// A limit of 0 is "none".
    pub(crate) fn new(stream: Stream, limit: usize) -> Self {
        Self { stream, limit: if limit == 0 { NO_LIMIT } else { limit.min(NO_LIMIT) }, pending: Vec::new() }
    }

    /// Takes the next bytes and appends the lines that they complete to `out`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], now: SystemTime, out: &mut Vec<u8>) -> Cut {
        let now = time::format(now);
        let mut cut = Cut::default();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let rest = self.shorten(&bytes[..end], &now, out, &mut cut);
            self.put(b'F', rest, &now, out, &mut cut);
            bytes = &bytes[end + 1..];
        }
        let rest = self.shorten(bytes, &now, out, &mut cut);
        self.pending.extend_from_slice(rest);
        cut
    }

    /// How many of the last bytes are in no line yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The stream ended: what is left becomes a piece.
    pub(crate) fn finish(&mut self, now: SystemTime, out: &mut Vec<u8>) -> Cut {
        let mut cut = Cut::default();
        if !self.pending.is_empty() {
            self.put(b'P', &[], &time::format(now), out, &mut cut);
        }
        self.pending = Vec::new();
        cut
    }

    /// Puts pieces as long as the line is longer than the limit; what remains of it fits.
    fn shorten<'a>(&mut self, mut line: &'a [u8], now: &Now, out: &mut Vec<u8>, cut: &mut Cut) -> &'a [u8] {
        while self.pending.len() + line.len() > self.limit {
            let (piece, rest) = line.split_at(self.limit - self.pending.len());
            self.put(b'P', piece, now, out, cut);
            cut.splits += 1;
            line = rest;
        }
        line
    }

    fn put(&mut self, tag: u8, rest: &[u8], now: &Now, out: &mut Vec<u8>, cut: &mut Cut) {
        out.extend_from_slice(now);
        out.push(b' ');
        out.extend_from_slice(self.stream.name());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.extend_from_slice(&self.pending);
        out.extend_from_slice(rest);
        out.push(b'\n');
        self.pending.clear();
        cut.lines += 1;
    }
}

type Now = [u8; time::LENGTH];

/// What cutting came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Lines written.
    pub(crate) lines: u64,
    /// Lines that were made only because one was too long.
    pub(crate) splits: u64,
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    /// Feeds the chunks and returns what a reader of the log sees: tag and bytes of each line.
    fn cut(limit: usize, chunks: &[&[u8]]) -> Vec<(char, Vec<u8>)> {
        let mut cutter = Cutter::new(Stream::Stderr, limit);
        let mut out = Vec::new();
        for chunk in chunks {
            cutter.feed(chunk, UNIX_EPOCH, &mut out);
        }
        cutter.finish(UNIX_EPOCH, &mut out);
        let lines = out.split_inclusive(|byte| *byte == b'\n');
        let head = b"1970-01-01T00:00:00.000000000Z stderr ";
        lines
            .map(|line| {
                let line = line.strip_prefix(head).expect("a head").strip_suffix(b"\n").expect("an end");
                assert_eq!(line[1], b' ');
                (char::from(line[0]), line[2..].to_vec())
            })
            .collect()
    }

    #[test]
    fn lines_are_cut_as_kubelet_expects() {
        type Case = (usize, &'static [&'static [u8]], &'static [(char, &'static [u8])]);
        let cases: &[Case] = &[
            (0, &[b"one\ntwo\n"], &[('F', b"one"), ('F', b"two")]),
            (0, &[b"\n\n"], &[('F', b""), ('F', b"")]),
            (0, &[b"no end"], &[('P', b"no end")]),
            (0, &[], &[]),
            (0, &[b"in ", b"two\n"], &[('F', b"in two")]),
            (0, &[b"dos\r\n"], &[('F', b"dos\r")]),
            (4, &[b"1234\n"], &[('F', b"1234")]),
            (4, &[b"12345\n"], &[('P', b"1234"), ('F', b"5")]),
            (4, &[b"1234", b"\n"], &[('F', b"1234")]),
            (4, &[b"1234", b"5678", b"9"], &[('P', b"1234"), ('P', b"5678"), ('P', b"9")]),
            (4, &[b"123456789\nx"], &[('P', b"1234"), ('P', b"5678"), ('F', b"9"), ('P', b"x")]),
            (0, &[b"\xff\x00\n"], &[('F', b"\xff\x00")]),
        ];
        for (limit, chunks, expected) in cases {
            let seen = cut(*limit, chunks);
            let seen: Vec<(char, &[u8])> = seen.iter().map(|(tag, bytes)| (*tag, bytes.as_slice())).collect();
            assert_eq!(seen, *expected, "{chunks:?} with limit {limit}");
        }
    }

    proptest! {
        #[test]
        fn any_stream_comes_back_whole(
            chunks in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..60), 0..20),
            limit in 0usize..20,
        ) {
            let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let mut back = Vec::new();
            for (tag, bytes) in cut(limit, &slices) {
                prop_assert!(limit == 0 || bytes.len() <= limit);
                prop_assert!(!bytes.contains(&b'\n'));
                back.extend(bytes);
                if tag == 'F' {
                    back.push(b'\n');
                }
            }
            prop_assert_eq!(back, chunks.concat());
        }
    }
}
