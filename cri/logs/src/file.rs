//! The log file: opened safely, appended to in whole lines.

use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};

/// Opens a log to append to, made with mode 0640 if missing, directories with 0755.
///
/// The path is in a directory that a pod may be able to write to through a volume. So a symbolic link at its end is
/// not followed, and what is there must be a file: a named pipe would take the lines of the log elsewhere.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = open(path, flags, Mode::from_raw_mode(0o640))?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(fd.into())
}

/// Appends whole lines. If the disk takes only some of them, the one that was torn is taken back, so that a reader
/// never sees half a line joined to a later one; the result is how many bytes of whole lines stayed, and why.
pub(crate) fn write_lines(file: &mut File, lines: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    let error = loop {
        match file.write(&lines[written..]) {
            Ok(0) => break io::ErrorKind::WriteZero.into(),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
        if written == lines.len() {
            return Ok(());
        }
    };
    let whole = memchr::memrchr(b'\n', &lines[..written]).map_or(0, |end| end + 1);
    let torn = u64::try_from(written - whole).unwrap_or(0);
    if torn > 0 {
        // Nothing better is left to do when this fails too: the disk does what it wants.
        let _ = file.metadata().and_then(|now| file.set_len(now.len().saturating_sub(torn)));
    }
    Err((whole, error))
}
