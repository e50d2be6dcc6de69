//! Reading extended attributes.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// A list of attributes: names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The attributes of an open file, sorted by name, without those by which overlayfs keeps its books.
pub(crate) fn of_file(fd: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    read(|list| rustix::fs::flistxattr(fd, list), |name, value| rustix::fs::fgetxattr(fd, name, value))
}

/// The attributes of whatever is at `path`, links included.
pub(crate) fn of_path(path: &[u8]) -> Result<Xattrs, Errno> {
    read(|list| rustix::fs::llistxattr(path, list), |name, value| rustix::fs::lgetxattr(path, name, value))
}

fn read(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Xattrs, Errno> {
    let names = match grow(list) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if crate::apply::steers_overlay(name) {
            continue;
        }
        match grow(|value| get(name, value)) {
            Ok(value) => found.push((name.to_vec(), value)),
            Err(Errno::NODATA | Errno::NOTSUP) => {} // gone since it was listed, or not for us
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

/// Calls `fill` with a buffer that is large enough: most attributes are small, and Linux has none above 64 KiB.
fn grow(fill: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match fill(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; 64 << 10];
            let length = fill(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}
