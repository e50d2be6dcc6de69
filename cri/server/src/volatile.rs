//! How the root file systems of pods are mounted: for one life, and then never again.

use std::{io, path::Path};

use kevel_model::{Error, Mount, Result};

use crate::{files::blocking, server::Settings};

/// The kernel that overlays have the option since.
const SINCE: (u32, u32) = (5, 10);
const VOLATILE: &str = "volatile";

impl Settings {
    /// The mounts of a container or sandbox that is about to be started, of which nothing is kept when it has ended or the
    /// node goes down. The kernel need not flush what such an overlay wrote, which it would otherwise do when it is
    /// unmounted, together with everything else that waits to be written to the same disk.
    pub(crate) async fn once(&self, mut mounts: Vec<Mount>) -> Result<Vec<Mount>> {
        if self.config.volatile_rootfs && self.volatile_overlays {
            let works: Vec<String> = mounts.iter_mut().filter_map(make_volatile).collect();
            blocking(move || works.iter().try_for_each(|work| forget_mount(Path::new(work)))).await?;
        }
        Ok(mounts)
    }
}

/// Whether overlays of a kernel of this release can be volatile.
pub(crate) fn is_offered(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= SINCE,
        _ => false,
    }
}

/// Adds the option to an overlay that can be written to; answers its work directory.
fn make_volatile(mount: &mut Mount) -> Option<String> {
    if mount.kind != "overlay" {
        return None;
    }
    let work = mount.options.iter().find_map(|option| option.strip_prefix("workdir="))?.to_owned();
    if !mount.options.iter().any(|option| option == VOLATILE) {
        mount.options.push(VOLATILE.to_owned());
    }
    Some(work)
}

/// Removes the mark by which the kernel refuses a second mount. It is there when a start was cut short before the
/// container's first process ran, and then there is nothing in the overlay that could be out of date. Blocks.
fn forget_mount(work: &Path) -> Result<()> {
    let mark = work.join("work/incompat");
    match std::fs::remove_dir_all(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", mark.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_overlays_that_are_written_to() {
        let check = |kind: &str, options: &[&str], want: Option<&str>, volatile: bool| {
            let options = options.iter().map(|option| (*option).to_owned()).collect();
            let mut mount = Mount { kind: kind.into(), options, ..Mount::default() };
            assert_eq!(make_volatile(&mut mount).as_deref(), want);
            assert_eq!(mount.options.iter().filter(|option| *option == VOLATILE).count(), usize::from(volatile));
        };
        check("overlay", &["workdir=/w", "upperdir=/u", "lowerdir=/l"], Some("/w"), true);
        check("overlay", &["workdir=/w", "upperdir=/u", VOLATILE], Some("/w"), true);
        check("overlay", &["lowerdir=/a:/b"], None, false);
        check("bind", &["rw", "rbind"], None, false);
        check("fuse3.nydus-overlayfs", &["workdir=/w"], None, false);
    }

    #[test]
    fn kernels_that_offer_it() {
        for (release, want) in [
            ("6.18.44", true),
            ("5.10.0-8-amd64", true),
            ("5.9.16", false),
            ("4.19", false),
            ("6.1+", true),
            ("", false),
        ] {
            assert_eq!(is_offered(release), want, "{release}");
        }
    }

    #[test]
    fn the_kernels_mark_goes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("work/incompat/volatile")).unwrap();
        forget_mount(dir.path()).unwrap();
        forget_mount(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
    }
}
