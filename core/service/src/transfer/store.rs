//! What `ImageStore` messages say.

use kevel_client::convert::types;
use kevel_contract::transfer::Unpack;
use kevel_model::{Labels, Platform};
use kevel_proto::containerd::types::transfer::{ImageStore, UnpackConfiguration};

/// Where to unpack; without a platform, for the host's.
pub(super) fn unpacks(unpacks: Vec<UnpackConfiguration>) -> Vec<Unpack> {
    let read = |unpack: UnpackConfiguration| Unpack {
        platform: unpack.platform.map_or_else(Platform::host, types::platform_read),
        snapshotter: unpack.snapshotter,
        labels: Labels::new(),
        annotate: false,
    };
    unpacks.into_iter().map(read).collect()
}

/// The names that an import gives.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Prefix of names for images that the archive names by tag only.
    pub(super) prefix: String,
    /// Names for every image.
    pub(super) exact: Vec<String>,
    /// Prefix of names by digest.
    pub(super) digest_prefix: Option<String>,
}

/// The names that a store asks for.
pub(super) fn names(store: &ImageStore) -> Names {
    let mut names = Names { prefix: store.name.clone(), ..Names::default() };
    for reference in &store.extra_references {
        if reference.is_prefix && reference.add_digest {
            names.digest_prefix = Some(reference.name.clone());
        }
        if reference.is_prefix && names.prefix.is_empty() {
            names.prefix.clone_from(&reference.name);
        }
        if !reference.is_prefix {
            names.exact.push(reference.name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use kevel_proto::containerd::types::transfer::ImageReference;

    use super::*;

    #[test]
    fn names_follow_the_references() {
        let reference = |name: &str, is_prefix, add_digest| ImageReference {
            name: name.into(),
            is_prefix,
            add_digest,
            ..Default::default()
        };
        let store = ImageStore {
            extra_references: vec![
                reference("a/b:1", false, false),
                reference("import", true, true),
                reference("other", true, false),
            ],
            ..Default::default()
        };
        let names = names(&store);
        assert_eq!(names.exact, ["a/b:1"]);
        assert_eq!((names.prefix.as_str(), names.digest_prefix.as_deref()), ("import", Some("import")));
    }
}
