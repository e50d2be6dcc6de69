//! Header blocks: name-value pairs, compressed with one zlib context for each direction of a connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::{dictionary::DICTIONARY, fault::Fault};

/// Headers of a stream; names in lower case.
pub type Headers = Vec<(String, String)>;

/// The largest header block, decompressed. Clients send three short headers.
pub const MAX_BLOCK: usize = 16 << 10;

/// Reads header blocks, in the order in which they came.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of a block. Every block of the connection has to pass here, wanted or not.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, Fault> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, Fault> {
        let (mut rest, mut all, mut piece) = (block, Vec::new(), [0; 1024]);
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            match self.0.decompress(rest, &mut piece, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| Fault::Compression)?;
                }
                Err(_) => return Err(Fault::Compression),
            }
            rest = &rest[count(read, self.0.total_in())..];
            let written = count(written, self.0.total_out());
            all.extend_from_slice(&piece[..written]);
            if all.len() > MAX_BLOCK {
                return Err(Fault::HeadersTooLong(MAX_BLOCK));
            }
            let stuck = count(read, self.0.total_in()) == 0 && written == 0;
            if rest.is_empty() && written < piece.len() {
                return Ok(all);
            }
            if stuck {
                return Err(Fault::Compression);
            }
        }
    }
}

/// Writes header blocks, in the order in which they go.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // Before the first byte zlib refuses no dictionary.
        let known = compress.set_dictionary(&DICTIONARY);
        debug_assert!(known.is_ok());
        Self(compress)
    }

    /// Appends a block with these headers.
    pub(super) fn write(&mut self, headers: &[(String, String)], out: &mut Vec<u8>) {
        let mut plain = Vec::new();
        number(headers.len(), &mut plain);
        for (name, value) in headers {
            for text in [name, value] {
                number(text.len(), &mut plain);
                plain.extend_from_slice(text.as_bytes());
            }
        }
        let (mut rest, mut piece) = (plain.as_slice(), [0; 1024]);
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            // Compressing cannot fail: the state is ours alone.
            let done = self.0.compress(rest, &mut piece, FlushCompress::Sync);
            debug_assert!(done.is_ok());
            rest = &rest[count(read, self.0.total_in())..];
            let written = count(written, self.0.total_out());
            out.extend_from_slice(&piece[..written]);
            if rest.is_empty() && written < piece.len() {
                return;
            }
        }
    }
}

fn count(before: u64, after: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

fn number(value: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
}

fn parse(mut block: &[u8]) -> Result<Headers, Fault> {
    let count = take_number(&mut block)?;
    let mut headers = Headers::new();
    // Each pair takes eight bytes at least, so the block's size bounds the work whatever it claims.
    for _ in 0..count {
        let name = take_text(&mut block)?;
        headers.push((name.to_ascii_lowercase(), take_text(&mut block)?));
    }
    if block.is_empty() { Ok(headers) } else { Err(Fault::HeaderBlock) }
}

fn take_number(block: &mut &[u8]) -> Result<usize, Fault> {
    let (bytes, rest) = block.split_first_chunk::<4>().ok_or(Fault::HeaderBlock)?;
    *block = rest;
    usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| Fault::HeaderBlock)
}

fn take_text(block: &mut &[u8]) -> Result<String, Fault> {
    let length = take_number(block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Fault::HeaderBlock)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Fault::HeaderBlock)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_block_of_another_implementation_is_read() {
        // Three blocks of one connection, as Go's implementation of SPDY wrote them.
        let blocks: [&[u8]; 3] = [
            &[
                120, 249, 227, 198, 167, 194, 98, 96, 96, 96, 4, 167, 179, 146, 162, 212, 196, 92, 104, 81, 194, 154,
                10, 10, 104, 0, 0, 0, 0, 255, 255,
            ],
            &[194, 46, 85, 92, 146, 146, 153, 7, 0, 0, 0, 255, 255],
            &[98, 96, 96, 96, 0, 0, 0, 0, 255, 255],
        ];
        let mut inflater = Inflater::new();
        assert_eq!(inflater.read(blocks[0]).unwrap(), [pair("streamtype", "error")]);
        assert_eq!(inflater.read(blocks[1]).unwrap(), [pair("streamtype", "stdin")]);
        assert_eq!(inflater.read(blocks[2]).unwrap(), []);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let check = |plain: &[u8], want: Fault| assert_eq!(parse(plain), Err(want), "{plain:?}");
        check(&[], Fault::HeaderBlock);
        check(&[0, 0, 0, 1], Fault::HeaderBlock);
        check(&[255; 4], Fault::HeaderBlock);
        check(&[0, 0, 0, 0, 9], Fault::HeaderBlock);
        check(&[0, 0, 0, 1, 0, 0, 0, 9, b'x'], Fault::HeaderBlock);
        check(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0], Fault::HeaderBlock);
        assert_eq!(Inflater::new().read(b"no zlib"), Err(Fault::Compression));
    }

    #[test]
    fn a_small_block_that_becomes_large_is_refused() {
        let mut block = Vec::new();
        Deflater::new().write(&[pair("a", &"x".repeat(MAX_BLOCK))], &mut block);
        assert!(block.len() < 1000);
        assert_eq!(Inflater::new().read(&block), Err(Fault::HeadersTooLong(MAX_BLOCK)));
    }

    proptest! {
        #[test]
        fn blocks_of_a_connection_come_back(
            blocks in prop::collection::vec(prop::collection::vec(("[a-z:-]{0,20}", ".{0,300}"), 0..8), 1..6)
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
            for headers in blocks {
                let mut block = Vec::new();
                deflater.write(&headers, &mut block);
                prop_assert_eq!(inflater.read(&block).unwrap(), headers);
            }
        }
    }
}
