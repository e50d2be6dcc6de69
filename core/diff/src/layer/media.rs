//! Media types of the layers that can be applied.

use crate::Error;

/// Checks that layers of `media_type` are tar archives, compressed or not. `nondistributable` and `foreign` ones are;
/// encrypted ones and file system images are not. An empty type is taken for a tar archive.
pub fn check_media_type(media_type: &str) -> Result<(), Error> {
    let oci = media_type
        .strip_prefix("application/vnd.oci.image.layer.")
        .map(|rest| rest.strip_prefix("nondistributable.").unwrap_or(rest))
        .and_then(|rest| rest.strip_prefix("v1.tar"));
    let docker = media_type
        .strip_prefix("application/vnd.docker.image.rootfs.")
        .map(|rest| rest.strip_prefix("foreign.").unwrap_or(rest))
        .and_then(|rest| rest.strip_prefix("diff.tar"));
    match oci.or(docker) {
        Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd") => Ok(()),
        None if media_type.is_empty() => Ok(()),
        _ => Err(Error::MediaType(media_type.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kevel_model::media_type as known;

    #[test]
    fn archives_and_nothing_else() {
        let layers = [
            known::OCI_LAYER,
            known::OCI_LAYER_GZIP,
            known::OCI_LAYER_ZSTD,
            known::DOCKER_LAYER,
            known::DOCKER_LAYER_GZIP,
            known::DOCKER_LAYER_ZSTD,
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "",
        ];
        for good in layers {
            check_media_type(good).unwrap();
        }
        for bad in [
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "application/vnd.erofs.layer.v1",
            "application/vnd.oci.image.layer.v1.tarball",
            known::OCI_CONFIG,
            "text/plain",
        ] {
            let error = check_media_type(bad).unwrap_err();
            assert!(matches!(&error, Error::MediaType(name) if name == bad), "{bad}");
            assert_eq!(error.code(), kevel_model::Code::Unimplemented);
        }
    }
}
