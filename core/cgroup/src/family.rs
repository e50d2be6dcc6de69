//! Which processes come from which. What they are and belong to is looked up by their ids.

use std::{collections::HashMap, fs, io, path::Path};

/// The children of every process that had some when it was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Families(HashMap<u32, Vec<u32>>);

impl Families {
    /// Looks at every process below `proc`, which is `/proc` but in tests. What the kernel itself lists as a process's children
    /// leaves some out while others end.
    ///
    /// # Errors
    ///
    /// The directory can't be read.
    pub fn of(proc: &Path) -> io::Result<Self> {
        let mut families: HashMap<u32, Vec<u32>> = HashMap::new();
        for process in fs::read_dir(proc)?.flatten() {
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(pid), Some(parent)) = (pid, parent(&process.path())) {
                families.entry(parent).or_default().push(pid);
            }
        }
        Ok(Self(families))
    }

    /// The children of a process.
    pub fn children(&self, pid: u32) -> &[u32] {
        self.0.get(&pid).map(Vec::as_slice).unwrap_or_default()
    }

    /// These processes and those that come from them, each after its parent.
    pub fn whole(mut self, mut found: Vec<u32>) -> Vec<u32> {
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            // Taken out, since ids that were used again meanwhile may make a circle.
            found.extend(self.0.remove(pid).unwrap_or_default());
            next += 1;
        }
        found
    }
}

/// The parent of a process, given its directory; none when it is gone. It is the second field of `stat` after the name, which
/// is in parentheses and may hold anything.
pub fn parent(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_whole_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        for (pid, parent) in [(7, 1), (9, 7), (8, 9), (6, 1), (10, 6), (20, 21), (21, 20)] {
            let process = dir.path().join(pid.to_string());
            fs::create_dir(&process).unwrap();
            fs::write(process.join("stat"), format!("{pid} (a) b) S {parent} 1 1")).unwrap();
        }
        fs::create_dir(dir.path().join("5")).unwrap(); // it has just ended
        fs::create_dir(dir.path().join("sys")).unwrap();
        let families = Families::of(dir.path()).unwrap();
        assert_eq!((families.children(9), families.children(8)), (&[8][..], &[][..]));
        assert_eq!(families.clone().whole(vec![7, 10]), [7, 10, 9, 8]);
        assert_eq!(families.clone().whole(vec![20]), [20, 21, 20], "a circle");
        assert_eq!(families.whole(vec![]), [0; 0]);
        assert_eq!((parent(&dir.path().join("8")), parent(&dir.path().join("5"))), (Some(9), None));
        assert!(Families::of(&dir.path().join("none")).is_err());
    }
}
