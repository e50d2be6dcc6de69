//! The names of entries: cleaned, and looked at for what AUFS and OCI mean by them.

use crate::error::Flaw;

/// In front of the name of a file that the layer removes (OCI image specification, layer.md, "Whiteouts").
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// In front of what AUFS keeps for itself.
const METADATA: &[u8] = b".wh..wh.";
/// The name that hides everything the layers below have in its directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// A path beneath the root: no empty component, no `.` and no `..`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name(Vec<u8>);

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Special<'a> {
    /// The entry itself.
    None,
    /// The absence of this name.
    Whiteout(&'a [u8]),
    /// The absence of everything else in the directory.
    Opaque,
    /// Nothing: AUFS bookkeeping.
    Metadata,
}

impl Name {
    /// Cleans `raw` by its letters alone: a leading slash means nothing, and `..` takes the name before it away. A path
    /// that leaves the root on its way is refused.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, Flaw> {
        let mut clean: Vec<u8> = Vec::with_capacity(raw.len());
        for component in raw.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." if clean.is_empty() => return Err(Flaw::Escape),
                b".." => clean.truncate(clean.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
                _ => {
                    if !clean.is_empty() {
                        clean.push(b'/');
                    }
                    clean.extend_from_slice(component);
                }
            }
        }
        Ok(Self(clean))
    }

    /// The last component; `None` for the root.
    pub(super) fn base(&self) -> Option<&[u8]> {
        self.0.rsplit(|&byte| byte == b'/').next().filter(|base| !base.is_empty())
    }

    /// Everything before the last component, empty for the root.
    pub(super) fn parent(&self) -> &[u8] {
        &self.0[..self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0)]
    }

    /// What the name stands for.
    pub(super) fn special(&self) -> Result<Special<'_>, Flaw> {
        let Some(base) = self.base() else { return Ok(Special::None) };
        for component in self.parent().split(|&byte| byte == b'/') {
            if component.starts_with(METADATA) {
                return Ok(Special::Metadata);
            }
            if component.starts_with(WHITEOUT) {
                return Err(Flaw::BeneathWhiteout);
            }
        }
        match base.strip_prefix(WHITEOUT) {
            None => Ok(Special::None),
            Some(_) if base == OPAQUE => Ok(Special::Opaque),
            Some(_) if base.starts_with(METADATA) => Ok(Special::Metadata),
            Some(b"" | b"." | b"..") => Err(Flaw::Whiteout),
            Some(hidden) => Ok(Special::Whiteout(hidden)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_stay_inside() {
        let check = |raw: &[u8], expected: Result<&[u8], Flaw>| {
            assert_eq!(Name::parse(raw).map(|name| name.0), expected.map(<[u8]>::to_vec), "{}", raw.escape_ascii());
        };
        check(b"a/b", Ok(b"a/b"));
        check(b"/a//./b/", Ok(b"a/b"));
        check(b"./", Ok(b""));
        check(b"a/../b", Ok(b"b"));
        check(b"a/b/../../c", Ok(b"c"));
        check(b"..a/...", Ok(b"..a/..."));
        for out in [&b".."[..], b"../a", b"/..", b"a/../../b", b"./../a"] {
            check(out, Err(Flaw::Escape));
        }
    }

    #[test]
    fn whiteouts_are_told_apart() {
        let check = |raw: &[u8], expected: Result<Special<'_>, Flaw>| {
            assert_eq!(Name::parse(raw).unwrap().special(), expected, "{}", raw.escape_ascii());
        };
        check(b"a/b.wh.c", Ok(Special::None));
        check(b"", Ok(Special::None));
        check(b"a/.wh.b", Ok(Special::Whiteout(b"b")));
        check(b".wh..hidden", Ok(Special::Whiteout(b".hidden")));
        check(b".wh..wh..opq", Ok(Special::Opaque));
        check(b"a/.wh..wh..opq", Ok(Special::Opaque));
        check(b".wh..wh.plnk/1.2", Ok(Special::Metadata));
        check(b"a/.wh..wh.aufs", Ok(Special::Metadata));
        check(b".wh.", Err(Flaw::Whiteout));
        check(b"a/.wh..", Err(Flaw::Whiteout));
        check(b"a/.wh...", Err(Flaw::Whiteout));
        check(b".wh.a/b", Err(Flaw::BeneathWhiteout));
    }
}
