//! The mount table: `/proc/self/mountinfo` as proc(5) describes it.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Id of the mount.
    pub id: u32,
    /// Id of the mount that it is mounted on.
    pub parent: u32,
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// The directory in the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted, seen from the process' root.
    pub mount_point: PathBuf,
    /// Options of the mount (`rw`, `nosuid`, …).
    pub options: Vec<String>,
    /// Optional fields (`shared:1`, `master:2`, …).
    pub optional: Vec<String>,
    /// File system type.
    pub kind: String,
    /// Device or other source.
    pub source: OsString,
    /// Options of the file system (`lowerdir=…`), as one text: what separates them depends on the file system.
    pub super_options: OsString,
}

/// Why a line is not one of a mount table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {field} is missing or malformed")]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    /// Name of the field, as in [`MountInfo`].
    pub field: &'static str,
}

/// All mounts of this process' namespace, oldest first at each place.
pub fn mount_table() -> Result<Vec<MountInfo>> {
    let path = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(path).map_err(|error| Error::io(format!("reading {path:?}"), error))?;
    Ok(parse(&text)?)
}

/// Parses a mount table.
pub fn parse(text: &[u8]) -> std::result::Result<Vec<MountInfo>, ParseError> {
    text.split(|b| *b == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| parse_line(line).map_err(|field| ParseError { line: index + 1, field }))
        .collect()
}

fn parse_line(line: &[u8]) -> std::result::Result<MountInfo, &'static str> {
    let mut fields = line.split(|b| *b == b' ');
    let mut next = |name: &'static str| fields.next().filter(|field| !field.is_empty()).ok_or(name);
    let id = number(next("id")?).ok_or("id")?;
    let parent = number(next("parent")?).ok_or("parent")?;
    let device = next("device")?;
    let colon = device.iter().position(|b| *b == b':').ok_or("device")?;
    let device = (number(&device[..colon]).ok_or("device")?, number(&device[colon + 1..]).ok_or("device")?);
    let root = PathBuf::from(unescape(next("root")?));
    let mount_point = PathBuf::from(unescape(next("mount_point")?));
    let options = text(next("options")?).split(',').map(str::to_owned).collect();
    let mut optional = vec![];
    loop {
        match next("optional")? {
            b"-" => break,
            field => optional.push(text(field)),
        }
    }
    let kind = text(next("kind")?);
    // Both may be empty: the kernel prints what it was given.
    let source = unescape(fields.next().ok_or("source")?);
    let super_options = unescape(fields.next().ok_or("super_options")?);
    Ok(MountInfo { id, parent, device, root, mount_point, options, optional, kind, source, super_options })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    unescape(field).to_string_lossy().into_owned()
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (*first, tail) {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_a_line() {
        let line =
            b"36 35 98:0 /a\\040b /mnt/c\\134d rw,noatime master:1 shared:7 - overlay none rw,lowerdir=/x\\040y\n";
        let all = parse(line).unwrap();
        let [one] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((one.id, one.parent, one.device), (36, 35, (98, 0)));
        assert_eq!(one.root, Path::new("/a b"));
        assert_eq!(one.mount_point, Path::new("/mnt/c\\d"));
        assert_eq!(one.options, ["rw", "noatime"]);
        assert_eq!(one.optional, ["master:1", "shared:7"]);
        assert_eq!((one.kind.as_str(), one.super_options.to_str()), ("overlay", Some("rw,lowerdir=/x y")));
    }

    #[test]
    fn says_what_is_missing() {
        let check = |line: &str, field: &'static str| {
            assert_eq!(parse(line.as_bytes()), Err(ParseError { line: 1, field }), "{line}");
        };
        check("x", "id");
        check("1 2 3", "device");
        check("1 2 3:4 / /mnt rw shared:1", "optional");
        check("1 2 3:4 / /mnt rw - ext4", "source");
    }

    #[test]
    fn reads_its_own() {
        let table = mount_table().unwrap();
        assert!(table.iter().any(|entry| entry.mount_point == Path::new("/proc")), "{table:?}");
    }

    fn escaped(path: &str) -> String {
        path.chars()
            .map(|c| match c {
                ' ' | '\t' | '\n' | '\\' | '#' => format!("\\{:03o}", c as u32),
                other => other.to_string(),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn round_trips_paths(root in "/\\PC{0,20}", point in "/[ \\t\\n\\\\#a-z0-9]{0,20}") {
            let line = format!("1 2 3:4 {} {} rw - bind none rw", escaped(&root), escaped(&point));
            let all = parse(line.as_bytes()).unwrap();
            prop_assert_eq!(all[0].root.to_str(), Some(root.as_str()));
            prop_assert_eq!(all[0].mount_point.to_str(), Some(point.as_str()));
        }
    }
}
