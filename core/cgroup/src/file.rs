//! The forms that cgroup files have: a number, lines of a word and a number, and `max` for no limit.

use std::{fs, io::Read as _, path::Path};

/// More than any of the files has; what is longer is cut there.
const LIMIT: u64 = 1 << 20;

/// Version 1 says "no limit" with the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// A file's text; empty when there is none.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    let mut text = String::new();
    let Ok(file) = fs::File::open(path) else { return text };
    let _ = file.take(LIMIT).read_to_string(&mut text); // what was read before an error is as good as nothing
    text
}

/// A file with one number; none for `max`.
pub(crate) fn number(path: impl AsRef<Path>) -> Option<u64> {
    text(path).trim().parse().ok()
}

/// A limit: none when there is none, in either version's words.
pub(crate) fn limit(path: impl AsRef<Path>) -> Option<u64> {
    number(path).filter(|limit| *limit < NO_LIMIT)
}

/// The number behind a word at the beginning of a line.
pub(crate) fn line(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
pub(crate) mod fixture {
    use std::{collections::BTreeMap, fs, path::Path};

    use crate::Place;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            fs::write(dir.join(name), content).unwrap();
        }
    }

    /// A place of version 2 with these files.
    pub(crate) fn v2(files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), files);
        let place = Place { unified: Some(dir.path().to_owned()), controllers: BTreeMap::new() };
        (dir, place)
    }

    /// A place of version 1 where every controller has the same directory, with these files.
    pub(crate) fn v1(files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), files);
        let names = ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb"];
        let controllers = names.map(|name| (name.to_owned(), dir.path().to_owned())).into();
        (dir, Place { unified: None, controllers })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_limits_and_lines() {
        let dir = tempfile::tempdir().unwrap();
        let check = |content: &str, want: (Option<u64>, Option<u64>)| {
            let path = dir.path().join("f");
            fs::write(&path, content).unwrap();
            assert_eq!((number(&path), limit(&path)), want, "{content:?}");
        };
        check("7\n", (Some(7), Some(7)));
        check("max\n", (None, None));
        check("9223372036854771712\n", (Some(9_223_372_036_854_771_712), None));
        check("", (None, None));
        check("-1\n", (None, None));
        assert_eq!(number(dir.path().join("missing")), None);
        assert_eq!(line("a 1\nab 2\n", "ab"), Some(2));
        assert_eq!(line("ab 2\n", "a"), None);
        assert_eq!(line("a\n", "a"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>(), word in "[a-z_]{1,12}") {
            let _ = line(&text, &word);
        }
    }
}
