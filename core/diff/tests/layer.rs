//! Compressed layers: told apart by their first bytes, hashed, and refused when damaged.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{
    fs::File,
    io::{self, Read, Write},
};

use harness::{Archive, Detail, chain, tree};
use kevel_diff::{
    Error, Layer, Options, apply_layer,
    layer::{Compression, Ratio},
};
use kevel_model::{Code, Digest};

const TYPE: &str = kevel_model::media_type::OCI_LAYER_GZIP;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(data, 1).unwrap()
}

fn apply(layer: impl Read + Send, options: &Options) -> (Result<Layer, Error>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let result = apply_layer(layer, TYPE, File::open(dir.path()).unwrap(), options);
    (result, tree(dir.path(), Detail::Content))
}

/// Small enough to be applied at once, and large enough to need threads.
fn archives() -> [Vec<u8>; 2] {
    let noise: String =
        (0..3_000_000u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8)).collect();
    [Archive::new().file("a", "small").end(), Archive::new().file("a", "x").file("b", &noise).dir("c").end()]
}

#[test]
fn every_compression_gives_the_same_layer() {
    for archive in archives() {
        let (half, rest) = archive.split_at(archive.len() / 2);
        let skippable = [&b"\x50\x2a\x4d\x18\x04\0\0\0abcd"[..], &zstd(&archive)].concat();
        let forms = [
            ("plain", archive.clone(), Compression::None),
            ("gzip", gzip(&archive), Compression::Gzip),
            ("gzip of two members", [gzip(half), gzip(rest)].concat(), Compression::Gzip),
            ("gzip with an empty member", [gzip(&archive), gzip(b"")].concat(), Compression::Gzip),
            ("gzip with padding", [gzip(&archive), vec![0; 700]].concat(), Compression::Gzip),
            ("zstd", zstd(&archive), Compression::Zstd),
            ("zstd of two frames", [zstd(half), zstd(rest)].concat(), Compression::Zstd),
            ("zstd with skippable frames", [&skippable[..], &skippable[..12]].concat(), Compression::Zstd),
        ];
        let expected = apply(&archive[..], &Options::default()).1;
        for (name, layer, compression) in forms {
            let (result, tree) = apply(OneByOne(&layer), &Options::default());
            let result = result.unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
            assert_eq!(result.diff_id, Digest::sha256(&archive), "{name}");
            assert_eq!((result.size, result.compression), (layer.len() as u64, compression), "{name}");
            assert_eq!(tree, expected, "{name}");
        }
    }
}

/// Returns short reads now and then, as sockets do.
struct OneByOne<'a>(&'a [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(if self.0.len().is_multiple_of(2) { 1 } else { 70_001 });
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn damage_is_an_error() {
    for archive in archives() {
        let (gzip, zstd) = (gzip(&archive), zstd(&archive));
        let flip = |mut bytes: Vec<u8>, at: usize| {
            bytes[at] ^= 0x10;
            bytes
        };
        let cut = |bytes: &[u8], by| bytes[..bytes.len() - by].to_vec();
        for (name, layer) in [
            ("gzip cut", cut(&gzip, 20)),
            ("gzip without its checksum", cut(&gzip, 4)),
            ("gzip with another checksum", flip(gzip.clone(), gzip.len() - 8)),
            ("gzip with another length", flip(gzip.clone(), gzip.len() - 2)),
            ("gzip with something behind", [&gzip[..], b"garbage"].concat()),
            ("gzip with something behind zeros", [&gzip[..], &[0; 99], b"x"].concat()),
            ("gzip with half a header", [&gzip[..], &gzip[..5]].concat()),
            ("zstd cut", cut(&zstd, 5)),
            ("zstd with something behind", [&zstd[..], b"garbage"].concat()),
        ] {
            let (result, _) = apply(&layer[..], &Options::default());
            let error = result.map(|layer| panic!("{name}: {layer:?}")).unwrap_err();
            assert!(matches!(error, Error::Decompress(_)), "{name}: {}", chain(&error));
            assert_eq!(error.code(), Code::InvalidArgument);
        }
    }
}

#[test]
fn a_window_that_takes_too_much_memory_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&archives()[1]).unwrap();
    let (result, _) = apply(&encoder.finish().unwrap()[..], &Options::default());
    assert!(matches!(result, Err(Error::Decompress(_))));
}

#[test]
fn a_bomb_ends_at_the_ratio() {
    let bomb = [Archive::new().file("a", "x").end(), vec![0; 64 << 20]].concat();
    let options = Options { ratio: Ratio { maximum: 100, floor: 4 << 20 }, ..Options::default() };
    for layer in [gzip(&bomb), zstd(&bomb)] {
        let error = apply(&layer[..], &options).0.unwrap_err();
        assert!(matches!(error, Error::Ratio(100)), "{}", chain(&error));
        assert_eq!(error.code(), Code::ResourceExhausted);
    }
    assert!(apply(&gzip(&bomb)[..], &Options::default()).0.is_ok());
}

#[test]
fn what_can_not_be_read_is_said() {
    for (start, name) in [(&b"BZh91AY&SY"[..], "bzip2"), (b"\xfd7zXZ\0\0\x04", "xz"), (b"\x04\x22\x4d\x18\x60", "lz4")]
    {
        let error = apply(start, &Options::default()).0.unwrap_err();
        assert!(matches!(error, Error::Compression(found) if found == name), "{}", chain(&error));
        assert_eq!(error.code(), Code::Unimplemented);
    }
    let dir = tempfile::tempdir().unwrap();
    let encrypted = format!("{TYPE}+encrypted");
    let error = apply_layer(&b""[..], &encrypted, File::open(dir.path()).unwrap(), &Options::default()).unwrap_err();
    assert!(kevel_model::Error::from(error).is_unimplemented());
}

/// Fails after some bytes, as a connection does.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line is dead")),
            length => Ok(length),
        }
    }
}

#[test]
fn a_source_that_breaks_is_not_a_damaged_layer() {
    for archive in archives() {
        let layer = gzip(&archive);
        for layer in [&layer[..layer.len() / 2], &archive[..archive.len() / 2], &[]] {
            let error = apply(Breaks(layer), &Options::default()).0.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{}", chain(&error));
        }
    }
}

#[test]
fn a_bad_entry_ends_the_threads() {
    let [_, large] = archives();
    let layer = [Archive::new().file("../a", "x").0, large].concat();
    let error = apply(&gzip(&layer)[..], &Options::default()).0.unwrap_err();
    assert!(chain(&error).contains("entry \"../a\": the path leads out of the root"));
}
