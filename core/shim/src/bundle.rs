//! Small files in a bundle. Everything here blocks for as long as a file in memory takes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::Error;

/// The longest file that is read, in bytes; specs of containers with many mounts stay far below.
const LIMIT: u64 = 16 << 20;

/// A file's content; `None` when there is no such file.
///
/// # Errors
/// Any other failure to read it, and one that is too long.
pub fn read_small(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("reading", path, error)),
    };
    let mut content = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "limited by take")]
    let read = file.take(LIMIT + 1).read_to_end(&mut content);
    read.map_err(|error| Error::file("reading", path, error))?;
    if content.len() as u64 > LIMIT {
        return Err(Error::file("reading", path, io::Error::other(format!("longer than {LIMIT} bytes"))));
    }
    Ok(Some(content))
}

/// Writes a file that only its owner reads, so that a crash leaves the old one or the new one.
///
/// # Errors
/// When it cannot be written; the old one stays.
pub fn write_small(path: &Path, content: &[u8]) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}"));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| Error::file("writing", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_missing_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(read_small(&path).unwrap().is_none());
        for content in [&b"one"[..], b""] {
            write_small(&path, content).unwrap();
            assert_eq!(read_small(&path).unwrap().unwrap(), content);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = read_small(dir.path()).unwrap_err();
        assert!(error.chain().contains("reading"), "{}", error.chain());
    }
}
