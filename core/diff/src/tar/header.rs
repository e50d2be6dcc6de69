//! The fields of one 512-byte header block.

use super::{BLOCK, Flaw, Kind};

/// A header block whose checksum holds.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// Stretches of data in a sparse file as offset and length, not checked yet.
pub(super) type Extents = Vec<(u64, u64)>;

/// What the type byte of a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// A member of the archive.
    Member(Kind),
    /// A member in GNU's old sparse format.
    Sparse,
    /// PAX records for the next member.
    Extended,
    /// PAX records for all members to come.
    Global,
    /// The next member's name (GNU).
    LongName,
    /// The next member's link target (GNU).
    LongLink,
}

impl<'a> Header<'a> {
    /// Checks the sum over `block`. Old writers added signed bytes; both sums are accepted, as everywhere.
    pub(super) fn new(block: &'a [u8; BLOCK]) -> Result<Self, Flaw> {
        let stated = octal(&block[148..156]).ok_or(Flaw::Checksum)?;
        let (mut unsigned, mut signed) = (0i128, 0i128);
        for (at, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned += i128::from(byte);
            signed += i128::from(byte.cast_signed());
        }
        if stated == unsigned || stated == signed { Ok(Self(block)) } else { Err(Flaw::Checksum) }
    }

    pub(super) fn kind(&self) -> Result<Type, Flaw> {
        Ok(match self.0[156] {
            // Before POSIX a directory was a file whose name ends in a slash.
            b'\0' if text(&self.0[..100]).ends_with(b"/") => Type::Member(Kind::Directory),
            b'0' | b'\0' | b'7' => Type::Member(Kind::File),
            b'1' => Type::Member(Kind::HardLink),
            b'2' => Type::Member(Kind::Symlink),
            b'3' => Type::Member(Kind::CharDevice),
            b'4' => Type::Member(Kind::BlockDevice),
            b'5' => Type::Member(Kind::Directory),
            b'6' => Type::Member(Kind::Fifo),
            b'S' if self.is_gnu() => Type::Sparse,
            b'x' => Type::Extended,
            b'g' => Type::Global,
            b'L' => Type::LongName,
            b'K' => Type::LongLink,
            other => return Err(Flaw::Kind(other)),
        })
    }

    fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    fn is_ustar(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    /// The name, with ustar's prefix in front.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if self.is_ustar() { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn size(&self) -> Result<u64, Flaw> {
        number(&self.0[124..136], "size")
    }

    pub(super) fn mode(&self) -> Result<u32, Flaw> {
        // Some writers put the file type above the permissions, some a whole Go or Windows mode.
        let mode: u64 = number(&self.0[100..108], "mode")?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or_default())
    }

    pub(super) fn uid(&self) -> Result<u64, Flaw> {
        number(&self.0[108..116], "uid")
    }

    pub(super) fn gid(&self) -> Result<u64, Flaw> {
        number(&self.0[116..124], "gid")
    }

    pub(super) fn mtime(&self) -> Result<i64, Flaw> {
        number(&self.0[136..148], "mtime")
    }

    /// Device numbers exist in ustar and GNU headers only; elsewhere the bytes mean nothing.
    pub(super) fn device(&self) -> Result<(u32, u32), Flaw> {
        if !self.is_ustar() && !self.is_gnu() {
            return Ok((0, 0));
        }
        Ok((number(&self.0[329..337], "devmajor")?, number(&self.0[337..345], "devminor")?))
    }

    /// The four segments of a GNU sparse header as `(offset, length)`, whether more blocks of them follow, and the size
    /// of the whole file.
    pub(super) fn sparse(&self) -> Result<(Extents, bool, u64), Flaw> {
        Ok((extents(&self.0[386..482])?, self.0[482] != 0, number(&self.0[483..495], "realsize")?))
    }
}

/// The segments of one continuation block of a GNU sparse header, and whether another follows.
pub(super) fn more_extents(block: &[u8; BLOCK]) -> Result<(Extents, bool), Flaw> {
    Ok((extents(&block[..504])?, block[504] != 0))
}

fn extents(bytes: &[u8]) -> Result<Extents, Flaw> {
    let mut found = Vec::new();
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        found.push((number(&pair[..12], "sparse offset")?, number(&pair[12..], "sparse length")?));
    }
    Ok(found)
}

/// The bytes of `field` before its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn number<T: TryFrom<i128>>(field: &[u8], name: &'static str) -> Result<T, Flaw> {
    let value = if field[0] & 0x80 == 0 { octal(field) } else { Some(binary(field)) };
    value.and_then(|value| T::try_from(value).ok()).ok_or(Flaw::Number(name))
}

/// An octal number between blanks and NULs; nothing at all is zero.
fn octal(field: &[u8]) -> Option<i128> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\0');
    let digits = field.iter().skip_while(|byte| blank(byte)).take_while(|byte| !blank(byte));
    let mut value = 0i128;
    for &digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return None;
        }
        value = value * 8 + i128::from(digit - b'0');
    }
    Some(value)
}

/// GNU's base-256: big-endian two's complement below the first bit, at most 95 bits wide.
fn binary(field: &[u8]) -> i128 {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] | 0x80 } else { field[0] & 0x7f };
    let mut value = if negative { -1i128 } else { 0 };
    for byte in std::iter::once(first).chain(field[1..].iter().copied()) {
        value = (value << 8) | i128::from(byte);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_encodings() {
        let check = |field: &[u8], expected: Option<i64>| assert_eq!(number(field, "x").ok(), expected, "{field:?}");
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"12345678", None);
        check(b"-1\0\0\0\0\0\0", None);
        check(b"0x1f\0\0\0\0", None);
        check(b"77777777", Some(0o77_777_777));
        check(b"\x80\0\0\0\0\0\x01\0", Some(256));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1));
        check(b"\xff\xff\xff\xff\xff\xff\xff\x00", Some(-256));
        check(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX));
        check(b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None);
        check(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None);
        assert_eq!(number::<u64>(b"\xff\xff\xff\xff\xff\xff\xff\xff", "x"), Err(Flaw::Number("x")));
    }
}
