//! The records of a PAX extended header: `length key=value newline`, repeated.

use super::{Flaw, Time};

/// What the records of one extended header say about the next entry. Unknown keys are dropped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// GNU's description of a sparse file in PAX records, all three versions of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Major and minor version; 1.0 keeps the map in front of the data.
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    /// The name of the file, which is not the one in the header.
    pub(super) name: Option<Vec<u8>>,
    /// The size with holes.
    pub(super) size: Option<u64>,
    /// Offsets and lengths by turns (0.0 and 0.1).
    pub(super) map: Option<Vec<u64>>,
}

impl Records {
    /// Reads every record of `bytes`.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Flaw> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or(Flaw::Record)?;
            records.set(key, value).ok_or_else(|| Flaw::Value(key.escape_ascii().to_string()))?;
            bytes = rest;
        }
        Ok(records)
    }

    /// Takes one record over; `None` if the value is impossible. An empty value takes an earlier one back.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = optional(value, text)?,
            b"linkpath" => self.link = optional(value, text)?,
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, decimal)?,
            b"gid" => self.gid = optional(value, decimal)?,
            b"mtime" => self.mtime = optional(value, time)?,
            b"atime" => self.atime = optional(value, time)?,
            b"GNU.sparse.major" => self.sparse.major = Some(decimal(value)?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(decimal(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(text(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(decimal(value)?),
            b"GNU.sparse.offset" => self.sparse.turn(value, 0)?,
            b"GNU.sparse.numbytes" => self.sparse.turn(value, 1)?,
            b"GNU.sparse.map" => {
                let numbers = value.split(|&byte| byte == b',').filter(|_| !value.is_empty());
                self.sparse.map = Some(numbers.map(decimal).collect::<Option<_>>()?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value)?;
                }
            }
        }
        Some(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let name = text(name).filter(|name| !name.is_empty())?;
        match self.xattrs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value.to_vec(),
            None => self.xattrs.push((name, value.to_vec())),
        }
        Some(())
    }
}

impl Sparse {
    /// Whether any version of the format is in use.
    pub(super) fn is_used(&self) -> bool {
        self.major.is_some() || self.map.is_some() || self.size.is_some()
    }

    /// Version 0.0 repeats two keys: an offset (`phase` 0) and a length (1) by turns.
    fn turn(&mut self, value: &[u8], phase: usize) -> Option<()> {
        let map = self.map.get_or_insert_default();
        map.push(decimal(value).filter(|_| map.len() % 2 == phase)?);
        Some(())
    }
}

/// The first record of `bytes` as key and value, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank])?).ok()?;
    let body = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
    Some((&body[..equals], &body[equals + 1..], &bytes[length..]))
}

fn optional<T>(value: &[u8], parse: fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

fn text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.contains(&0)).then(|| value.to_vec())
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

/// Decimal seconds with a sign and a fraction; digits past the nanosecond are cut off.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let (whole, fraction) = match value.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0u32, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos },
        (true, _) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<Records, Flaw>) {
        assert_eq!(Records::parse(bytes), expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn records_are_exact() {
        let path = |name: &[u8]| Ok(Records { path: Some(name.to_vec()), ..Records::default() });
        check(b"", Ok(Records::default()));
        check(b"10 path=a\n", path(b"a"));
        check(b"10 path=a\n10 path=b\n", path(b"b"));
        check(b"13 path=\xff\n=\n\n", path(b"\xff\n=\n"));
        check(b"14 comment=hi\n", Ok(Records::default()));
        for bad in [
            &b"10 path=a"[..],
            b"8 path=a\n",
            b"11 path=a\n",
            b"path=a\n",
            b"10path=a\n\n",
            b"7 path\n",
            b"5 =a\n",
            b"-10 path=a\n",
            b"+10 path=a\n",
            b"99999999999999999999 path=a\n",
            b"0 \n",
            b" 10 path=a\n",
            b"\0\0\0",
        ] {
            check(bad, Err(Flaw::Record));
        }
        for (bad, key) in [
            (&b"11 path=a\0\n"[..], "path"),
            (b"11 size=-1\n", "size"),
            (b"29 size=18446744073709551616\n", "size"),
            (b"11 uid=0x1\n", "uid"),
            (b"12 mtime=x.\n", "mtime"),
            (b"24 GNU.sparse.map=1,,2,\n", "GNU.sparse.map"),
        ] {
            check(bad, Err(Flaw::Value(key.into())));
        }
    }

    #[test]
    fn times_round_down() {
        let check = |value: &[u8], expected: Option<(i64, u32)>| {
            assert_eq!(time(value).map(|time| (time.seconds, time.nanos)), expected, "{}", value.escape_ascii());
        };
        check(b"1", Some((1, 0)));
        check(b"1.5", Some((1, 500_000_000)));
        check(b"1.0000000019", Some((1, 1)));
        check(b"-1", Some((-1, 0)));
        check(b"-0.25", Some((-1, 750_000_000)));
        check(b"9223372036854775808", None);
        for bad in [&b""[..], b".", b".5", b"1.x", b"1e3", b"--1", b"nan"] {
            check(bad, None);
        }
    }

    #[test]
    fn attributes_keep_every_byte() {
        let records = Records::parse(b"30 SCHILY.xattr.user.a=\0=\n\xff..\n").unwrap();
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"\0=\n\xff..".to_vec())]);
    }
}
