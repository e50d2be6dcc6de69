//! Huge pages.

use std::fs;

use crate::{Place, file::number};

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hugetlb {
    /// The size, as the kernel writes it: `2MB`, `1GB`.
    pub page: String,
    /// What is used.
    pub usage: Option<u64>,
    /// The most that was used; version 1 alone tells.
    pub peak: Option<u64>,
    /// How often the limit was hit; version 1 alone tells.
    pub failures: Option<u64>,
}

impl Hugetlb {
    /// Reads a place, by size. Empty where the controller is not there.
    pub fn of(place: &Place) -> Vec<Self> {
        let (dir, usage) = match &place.unified {
            Some(dir) => (dir.clone(), "current"),
            None => match place.controllers.get("hugetlb") {
                Some(dir) => (dir.clone(), "usage_in_bytes"),
                None => return Vec::new(),
            },
        };
        let Ok(entries) = fs::read_dir(&dir) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("hugetlb.")) else { continue };
            let Some((page, file)) = rest.split_once('.') else { continue };
            if file == usage {
                let at = |file: &str| number(dir.join(format!("hugetlb.{page}.{file}")));
                let (peak, failures) = (at("max_usage_in_bytes"), at("failcnt"));
                found.push(Self { page: page.to_owned(), usage: at(usage), peak, failures });
            }
        }
        found.sort_by(|a, b| a.page.cmp(&b.page));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::fixture;

    #[test]
    fn both_versions() {
        let (_dir, place) = fixture::v2(&[("hugetlb.2MB.current", "4\n"), ("hugetlb.2MB.rsvd.current", "9\n")]);
        assert_eq!(Hugetlb::of(&place), [Hugetlb { page: "2MB".into(), usage: Some(4), ..Hugetlb::default() }]);
        let (_dir, place) = fixture::v1(&[
            ("hugetlb.1GB.usage_in_bytes", "1\n"),
            ("hugetlb.1GB.max_usage_in_bytes", "2\n"),
            ("hugetlb.1GB.failcnt", "3\n"),
        ]);
        let want = Hugetlb { page: "1GB".into(), usage: Some(1), peak: Some(2), failures: Some(3) };
        assert_eq!(Hugetlb::of(&place), [want]);
        assert_eq!(Hugetlb::of(&Place::default()), []);
    }
}
