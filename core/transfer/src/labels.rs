//! Labels by which content, snapshots and images refer to each other. The names are containerd's.

use std::time::SystemTime;

use kevel_model::{Descriptor, Labels, Reference, media_type};

/// On a layer: its diff id.
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// On a config, before the snapshotter's name: the chain id of its layers.
pub(crate) const SNAPSHOT_REF: &str = "containerd.io/gc.ref.snapshot.";
/// On an active snapshot: the name that it will have.
pub(crate) const TARGET: &str = "containerd.io/snapshot.ref";

/// What a document refers to, as labels for the garbage collector.
pub(crate) fn children<'a>(children: impl IntoIterator<Item = &'a Descriptor>) -> Labels {
    let (mut manifests, mut layers, mut others) = (0, 0, 0);
    let mut labels = Labels::new();
    for child in children {
        let kind = &child.media_type;
        let numbered = |name: &str, counter: &mut usize| {
            let key = format!("containerd.io/gc.ref.content.{name}{counter}");
            *counter += 1;
            key
        };
        let key = if media_type::is_index(kind) || media_type::is_manifest(kind) {
            numbered("m.", &mut manifests)
        } else if media_type::is_config(kind) {
            "containerd.io/gc.ref.content.config".to_owned()
        } else if media_type::is_layer(kind) {
            numbered("l.", &mut layers)
        } else {
            numbered("", &mut others)
        };
        labels.insert(key, child.digest.to_string());
    }
    labels
}

/// Where content came from.
pub(crate) fn source(reference: &Reference) -> (String, String) {
    (format!("containerd.io/distribution.source.{}", reference.registry()), reference.repository().to_owned())
}

/// Labels that tell a remote snapshotter which layer of which image a snapshot is for.
pub(crate) fn annotations(reference: &str, manifest: &Descriptor, layers: &[Descriptor]) -> Labels {
    let label = |name: &str, value: String| (format!("containerd.io/snapshot/cri.{name}"), value);
    let mut labels =
        Labels::from([label("image-ref", reference.to_owned()), label("manifest-digest", manifest.digest.to_string())]);
    if let Some(layer) = layers.first() {
        labels.extend([label("layer-digest", layer.digest.to_string())]);
    }
    // As many layers from this one on as a label has room for.
    let key = "containerd.io/snapshot/cri.image-layers";
    let mut value = String::new();
    for layer in layers {
        if key.len() + value.len() + 1 + layer.digest.as_str().len() > 4096 {
            break;
        }
        if !value.is_empty() {
            value.push(',');
        }
        value.push_str(layer.digest.as_str());
    }
    labels.insert(key.to_owned(), value);
    labels
}

/// A time as RFC 3339 writes it, in whole seconds of UTC.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days since 1970, in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_go_reads_them() {
        let check = |seconds: u64, want: &str| {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), want);
        };
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_798_761_599, "2026-12-31T23:59:59Z");
    }

    #[test]
    fn children_are_numbered_by_kind() {
        let child = |kind: &str, name: &str| Descriptor::new(kind, kevel_model::Digest::sha256(name.as_bytes()), 1);
        let all = [
            child(media_type::OCI_CONFIG, "c"),
            child(media_type::OCI_LAYER_GZIP, "a"),
            child(media_type::DOCKER_LAYER_GZIP, "b"),
            child("application/x", "x"),
        ];
        let keys: Vec<String> = children(&all).into_keys().collect();
        let prefix = "containerd.io/gc.ref.content.";
        assert_eq!(keys, ["0", "config", "l.0", "l.1"].map(|key| format!("{prefix}{key}")));
    }
}
