//! How many tasks there are and may be.

use crate::{
    Place,
    file::{limit, number},
};

/// Tasks: processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// How many there are.
    pub current: Option<u64>,
    /// How many there may be; none when there is no limit.
    pub limit: Option<u64>,
}

impl Pids {
    /// Reads a place.
    pub fn of(place: &Place) -> Self {
        let path = |file: &str| match &place.unified {
            Some(dir) => Some(dir.join(file)),
            None => place.v1("pids", file),
        };
        Self { current: path("pids.current").and_then(number), limit: path("pids.max").and_then(limit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::fixture;

    #[test]
    fn both_versions_have_the_same_files() {
        let files = [("pids.current", "3\n"), ("pids.max", "max\n")];
        let want = Pids { current: Some(3), limit: None };
        let (_dir, place) = fixture::v2(&files);
        assert_eq!(Pids::of(&place), want);
        let (_dir, place) = fixture::v1(&files);
        assert_eq!(Pids::of(&place), want);
        assert_eq!(Pids::of(&Place::default()), Pids::default());
    }
}
