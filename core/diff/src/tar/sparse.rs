//! Maps of sparse files: where the data is between the holes.

use super::Flaw;

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// Checks that `pairs` of offset and length are in order, inside a file of `size` bytes, and add up to `stored`.
/// Segments without data, which mark the end, are dropped.
pub(super) fn map(pairs: impl IntoIterator<Item = (u64, u64)>, size: u64, stored: u64) -> Result<Vec<Segment>, Flaw> {
    let (mut segments, mut end, mut sum) = (Vec::new(), 0u64, 0u64);
    for (offset, length) in pairs {
        if offset < end {
            return Err(Flaw::Sparse);
        }
        end = offset.checked_add(length).filter(|&end| end <= size).ok_or(Flaw::Sparse)?;
        sum += length; // can't overflow: the segments don't overlap and end at or before `size`
        if length > 0 {
            segments.push(Segment { offset, length });
        }
    }
    if sum == stored { Ok(segments) } else { Err(Flaw::Sparse) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_ordered_bounded_and_complete() {
        let check = |pairs: &[(u64, u64)], size, stored, expected: Option<usize>| {
            let found = map(pairs.iter().copied(), size, stored);
            assert_eq!(found.ok().map(|segments| segments.len()), expected, "{pairs:?} in {size}, {stored} stored");
        };
        check(&[], 10, 0, Some(0));
        check(&[(0, 4), (8, 2), (10, 0)], 10, 6, Some(2));
        check(&[(0, 4), (8, 2)], 10, 7, None);
        check(&[(0, 4), (3, 2)], 10, 6, None);
        check(&[(8, 3)], 10, 3, None);
        check(&[(u64::MAX, 1)], u64::MAX, 1, None);
        check(&[(5, u64::MAX)], u64::MAX, u64::MAX, None);
        check(&[(8, 2), (0, 4)], 10, 6, None);
    }
}
