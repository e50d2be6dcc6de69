//! Id mappings in labels: `container-id:host-id:size`, several joined by commas.

use kevel_model::Labels;

use crate::error::{Error, Result};

/// The label with the mapping of user ids.
pub(crate) const UID_LABEL: &str = "containerd.io/snapshot/uidmapping";
/// The label with the mapping of group ids.
pub(crate) const GID_LABEL: &str = "containerd.io/snapshot/gidmapping";

/// The host's ids of the container's root; nothing without mapping.
pub(crate) fn root(labels: &Labels) -> Result<Option<(u32, u32)>> {
    if !labels.contains_key(UID_LABEL) && !labels.contains_key(GID_LABEL) {
        return Ok(None);
    }
    let id = |label: &'static str| {
        let value = labels.get(label).map(String::as_str).unwrap_or_default();
        host_root(value).ok_or_else(|| Error::Mapping { label, value: value.chars().take(100).collect() })
    };
    Ok(Some((id(UID_LABEL)?, id(GID_LABEL)?)))
}

fn host_root(mapping: &str) -> Option<u32> {
    let mut found = None;
    for entry in mapping.split(',') {
        let mut numbers = entry.split(':').map(|number| number.parse::<u32>().ok());
        let (container, host, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
        if numbers.next().is_some() || size == 0 || host.checked_add(size - 1).is_none() {
            return None;
        }
        if container == 0 {
            found = found.or(Some(host));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_hosts_id_of_root() {
        let check = |mapping: &str, want| assert_eq!(host_root(mapping), want, "{mapping}");
        check("0:1000:65536", Some(1000));
        check("1:5:10,0:70:1", Some(70));
        for bad in ["", "0:1", "1:1:1", "0:1:0", "0:1:2:3", "0:x:1", "0:4294967295:2", "0:1:1,"] {
            check(bad, None);
        }
    }

    #[test]
    fn both_labels_or_none() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(root(&Labels::new()).unwrap(), None);
        assert_eq!(root(&labels(&[(UID_LABEL, "0:1:1"), (GID_LABEL, "0:2:1")])).unwrap(), Some((1, 2)));
        let error = root(&labels(&[(UID_LABEL, "0:1:1")])).unwrap_err().to_string();
        assert!(error.contains(GID_LABEL), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9:,]{0,40}|\\PC{0,20}") {
            let _ = host_root(&text);
        }
    }
}
