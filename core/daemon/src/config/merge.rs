//! How an imported file changes what was read before it.

use toml::{Table, Value};

/// Merges `newer` into `base`: tables key by key, lists appended (equal entries once), anything else replaced.
pub(super) fn tables(base: &mut Table, newer: Table) {
    for (key, value) in newer {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => tables(old, new),
            (Some(Value::Array(old)), Value::Array(new)) => {
                for entry in new {
                    if !old.contains(&entry) {
                        old.push(entry);
                    }
                }
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_by_kind() {
        let check = |base: &str, newer: &str, want: &str| {
            let mut base: Table = base.parse().unwrap();
            tables(&mut base, newer.parse().unwrap());
            assert_eq!(base, want.parse::<Table>().unwrap());
        };
        check("a = 1", "a = 2\nb = 3", "a = 2\nb = 3");
        check("l = [1, 2]", "l = [2, 3]", "l = [1, 2, 3]");
        check("[t]\na = 1\nb = 1", "[t]\nb = 2", "[t]\na = 1\nb = 2");
        check("[t]\na = 1", "t = 5", "t = 5");
    }
}
