//! The table `[timeouts]`: containerd's names for how long parts of the daemon may take. What a limit is for is the
//! business of the plugin that reads it, as the property of that name.

use std::collections::BTreeMap;

use anyhow::bail;
use kevel_model::duration;

/// The names that something here acts on; values are durations such as `5s`, and `0s` is only for [`OPEN`].
const KNOWN: [&str; 7] = [
    OPEN,
    "io.containerd.timeout.cri.defercleanup",
    "io.containerd.timeout.metrics.shimstats",
    "io.containerd.timeout.shim.cleanup",
    "io.containerd.timeout.shim.load",
    "io.containerd.timeout.shim.shutdown",
    "io.containerd.timeout.task.state",
];
/// How long another process may hold the metadata database; none at all is the default.
const OPEN: &str = "io.containerd.timeout.bolt.open";

/// Checks the table: a value that is no duration is an error that names its key.
pub(crate) fn check(table: &BTreeMap<String, String>) -> anyhow::Result<()> {
    for (name, value) in table {
        match duration::parse(value) {
            None => bail!("timeouts.\"{name}\": {value:?} is not a duration such as \"5s\""),
            Some(limit) if limit.is_zero() && name != OPEN => bail!("timeouts.\"{name}\": nothing is done in no time"),
            Some(_) => {}
        }
    }
    Ok(())
}

/// Names that nothing acts on.
pub(crate) fn strangers(table: &BTreeMap<String, String>) -> impl Iterator<Item = &String> {
    table.keys().filter(|name| !KNOWN.contains(&name.as_str()))
}

/// The limits as properties for plugins.
pub(crate) fn properties(table: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
    table.iter().map(|(name, value)| (name.clone(), value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_name_their_key() {
        let check = |name: &str, value: &str, want: Option<&str>| {
            let table = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(check(&table).err().map(|error| error.to_string()).as_deref(), want, "{name} = {value}");
        };
        check("io.containerd.timeout.shim.load", "5s", None);
        check("io.containerd.timeout.bolt.open", "0s", None);
        check("io.containerd.timeout.somebody.else", "1m30s", None);
        let key = "timeouts.\"io.containerd.timeout.shim.load\"";
        check("io.containerd.timeout.shim.load", "5", Some(&format!("{key}: \"5\" is not a duration such as \"5s\"")));
        check("io.containerd.timeout.shim.load", "0s", Some(&format!("{key}: nothing is done in no time")));
        let table =
            BTreeMap::from([KNOWN[1], "io.containerd.timeout.x"].map(|name| (name.to_owned(), "1s".to_owned())));
        assert_eq!(strangers(&table).collect::<Vec<_>>(), ["io.containerd.timeout.x"]);
    }
}
