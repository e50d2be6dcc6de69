//! Which manifests of an index are for us.

use kevel_model::{Descriptor, Platform, media_type};

/// The best manifest for each platform, in the order of the platforms, each once. A manifest without platform is taken
/// where nothing says that it is for it.
pub(crate) fn best(manifests: &[Descriptor], platforms: &[Platform]) -> Vec<Descriptor> {
    let mut chosen: Vec<Descriptor> = Vec::new();
    for platform in platforms {
        let rank = |candidate: &Descriptor| match &candidate.platform {
            Some(its) => platform.rank(its).map(u16::from),
            None => Some(u16::MAX),
        };
        let usable = manifests.iter().filter(|candidate| {
            media_type::is_manifest(&candidate.media_type) || media_type::is_index(&candidate.media_type)
        });
        let ranked = usable.filter_map(|candidate| Some((rank(candidate)?, candidate)));
        if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank)
            && !chosen.iter().any(|other| other.digest == best.digest)
        {
            chosen.push(best.clone());
        }
    }
    chosen
}

/// Platforms as errors list them.
pub(crate) fn list<'a>(platforms: impl IntoIterator<Item = &'a Platform>) -> String {
    platforms.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use kevel_model::Digest;

    use super::*;

    fn manifest(platform: &str) -> Descriptor {
        let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(platform.as_bytes()), 1);
        descriptor.platform = (!platform.is_empty()).then(|| platform.parse().unwrap());
        descriptor
    }

    #[test]
    fn the_best_match_wins() {
        let all: Vec<_> = ["linux/amd64", "", "linux/arm/v6", "linux/arm/v7"].into_iter().map(manifest).collect();
        let check = |wanted: &[&str], want: &[&str]| {
            let platforms: Vec<Platform> = wanted.iter().map(|text| text.parse().unwrap()).collect();
            let want: Vec<_> = want.iter().map(|text| manifest(text)).collect();
            assert_eq!(best(&all, &platforms), want, "{wanted:?}");
        };
        check(&["linux/amd64"], &["linux/amd64"]);
        check(&["linux/arm/v7"], &["linux/arm/v7"]);
        check(&["linux/arm/v6", "linux/amd64"], &["linux/arm/v6", "linux/amd64"]);
        check(&["linux/s390x"], &[""]);
        check(&["linux/amd64", "linux/amd64"], &["linux/amd64"]);
        assert!(best(&all[..1], &["linux/s390x".parse().unwrap()]).is_empty());
    }
}
