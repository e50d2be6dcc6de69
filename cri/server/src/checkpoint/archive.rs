//! Archives of checkpoints: written whole or not at all, and read with the eyes of somebody who did not write them.
//!
//! Of an archive only files with known names are taken, and images, which are files of one directory. Everything is made
//! anew in a directory of the daemon's, so a name leads nowhere else and a link can't be put in the way; one that holds
//! anything but files and directories is refused as a whole, because CRIU, which opens images as root, would follow it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use kevel_model::{Error, Result};
use rustix::fs::OFlags;
use serde::Deserialize;
use tar::{Archive, EntryType};

use super::{capture, partial};
use crate::{identity, reach};

/// The largest document in an archive that is read into memory, in bytes.
const DOCUMENT: u64 = 16 << 20;
/// The longest name or attribute record of an archive, in bytes.
const RECORD: u64 = 1 << 20;
/// The most entries.
pub(super) const ENTRIES: usize = 1 << 17;
/// The directory with CRIU's images.
pub(super) const IMAGES: &str = "checkpoint";
/// The layer of files that the container had changed.
pub(super) const CHANGES: &str = "rootfs-diff.tar";
/// Another runtime's list of files that were removed, which its layer does not tell.
const REMOVED: &str = "deleted.files";

/// `config.dump`, as far as it is needed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// The container's name in its pod.
    pub(crate) name: String,
    /// The image that it was made from: what the request said, the identifier, a name.
    #[serde(rename = "rootfsImage")]
    pub(crate) image: String,
    #[serde(rename = "rootfsImageRef")]
    pub(crate) image_ref: String,
    #[serde(rename = "rootfsImageName")]
    pub(crate) image_name: String,
}

/// What an archive says of itself.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) config: Config,
    /// The OCI spec of the container.
    pub(crate) spec: serde_json::Value,
}

/// Writes what was gathered in `dir` to the file `to`, which nobody sees before it is complete and on disk. Where it is until
/// then stands in the file `note`, for a daemon after this one. Blocks.
pub(super) fn pack(dir: &Path, log: &str, to: &Path, note: &Path) -> Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let partial = to.with_file_name(format!(".{name}.{}", &identity::new_id()?[..12]));
    partial::note(note, &partial)?;
    let written = write(dir, log, &partial).and_then(|()| fs::rename(&partial, to));
    let written = written.and_then(|()| File::open(to.parent().unwrap_or(to))?.sync_all());
    let written = written.map_err(|error| {
        let _ = fs::remove_file(&partial);
        Error::io(format!("writing {}", to.display()), error)
    });
    partial::forget(note);
    written
}

fn write(dir: &Path, log: &str, to: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, file));
    archive.follow_symlinks(false);
    for name in capture::names(dir).map_err(io::Error::other)? {
        let at = dir.join(&name);
        if at.is_dir() {
            archive.append_dir_all(&name, &at)?;
        } else {
            archive.append_path_with_name(&at, &name)?;
        }
    }
    // The daemon goes on writing it; as long as it is now is what is taken.
    if let Some(mut log) = open(Path::new(log)).ok().filter(|_| !log.is_empty()) {
        archive.append_file("container.log", &mut log)?;
    }
    let mut file = archive.into_inner()?;
    file.flush()?;
    file.get_ref().sync_all()
}

/// Opens a plain file, not what a link leads to and nothing that makes its reader wait.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    Ok(file)
}

/// Who is shown the files of a checkpoint, under their names.
pub(super) type Show<'a> = dyn FnMut(&str, &mut dyn Read) -> io::Result<()> + 'a;

/// What an archive says of itself. Blocks.
pub(super) fn peek(field: &str, path: &str) -> Result<Contents> {
    contents(&format!("{field}: {path:?}"), |show| each(field, path, show))
}

/// What a checkpoint says of itself whose files are shown. Blocks.
pub(super) fn contents(what: &str, each: impl FnOnce(&mut Show<'_>) -> Result<()>) -> Result<Contents> {
    let (mut config, mut spec) = (None, None);
    each(&mut |name, entry| {
        let document = match name {
            "config.dump" => &mut config,
            "spec.dump" => &mut spec,
            _ => return Ok(()),
        };
        let mut text = Vec::new();
        let whole = entry.take(DOCUMENT + 1);
        read_whole(whole, &mut text)?;
        *document = Some(text);
        Ok(())
    })?;
    let missing = |name: &str| Error::invalid_argument(format!("{what} has no {name}"));
    let (config, spec) = (config.ok_or_else(|| missing("config.dump"))?, spec.ok_or_else(|| missing("spec.dump"))?);
    let wrong = |name: &str| {
        let message = format!("{what}: {name} in it");
        move |error| Error::invalid_argument(message).with_source(error)
    };
    Ok(Contents {
        config: serde_json::from_slice(&config).map_err(wrong("config.dump"))?,
        spec: serde_json::from_slice(&spec).map_err(wrong("spec.dump"))?,
    })
}

fn read_whole(whole: io::Take<impl Read>, text: &mut Vec<u8>) -> io::Result<()> {
    let mut whole = whole;
    #[expect(clippy::disallowed_methods, reason = "limited by take")]
    whole.read_to_end(text)?;
    if text.len() as u64 > DOCUMENT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a document is too large"));
    }
    Ok(())
}

/// Takes what restoring needs into the directory `to`, which is empty. Blocks.
pub(super) fn unpack(field: &str, path: &str, to: &Path) -> Result<()> {
    take(to, |show| each(field, path, show))
}

/// The same of files that are shown. Blocks.
pub(super) fn take(to: &Path, each: impl FnOnce(&mut Show<'_>) -> Result<()>) -> Result<()> {
    let images = to.join(IMAGES);
    fs::create_dir(&images).map_err(|error| Error::io(format!("making directory {}", images.display()), error))?;
    each(&mut |name, entry| {
        let Some(place) = place(to, name) else { return Ok(()) };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
        io::copy(entry, &mut file).map(drop)
    })
}

/// Where a file of an archive goes; nowhere when it is not needed.
fn place(to: &Path, name: &str) -> Option<PathBuf> {
    match name.split_once('/') {
        None => (name == CHANGES).then(|| to.join(name)),
        Some((IMAGES, image)) => Some(to.join(IMAGES).join(image)),
        Some(_) => None,
    }
}

/// Shows every file of an archive under its name.
fn each(field: &str, path: &str, show: &mut Show<'_>) -> Result<()> {
    reach::at(field, path)?;
    let failed = |error: io::Error| {
        let message = format!("{field}: {path:?} can't be restored from");
        match error.kind() {
            io::ErrorKind::NotFound => Error::not_found(message).with_source(error),
            _ => Error::invalid_argument(message).with_source(error),
        }
    };
    let mut file = open(Path::new(path)).map_err(failed)?;
    records(&file).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut archive = Archive::new(BufReader::with_capacity(1 << 20, file));
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = plain(&entry.path_bytes(), entry.header().entry_type()).map_err(failed)?;
        if let Some(name) = name {
            show(&name, &mut entry).map_err(failed)?;
        }
    }
    Ok(())
}

/// Looks at every header: how many there are, how long those are that are read into memory, and that nothing is cut off.
fn records(file: &File) -> io::Result<()> {
    let bad = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
    let length = file.metadata()?.len();
    let mut archive = Archive::new(file);
    for (count, entry) in archive.entries_with_seek()?.raw(true).enumerate() {
        let entry = entry?;
        let kind = entry.header().entry_type();
        let is_record = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if is_record && entry.header().entry_size()? > RECORD {
            return bad("a record in it is too long");
        }
        // An end in the middle of a file reads like that of the file.
        if entry.raw_file_position().checked_add(entry.header().entry_size()?).is_none_or(|end| end > length) {
            return bad("it ends early");
        }
        if count >= ENTRIES {
            return bad("it has too many entries");
        }
    }
    Ok(())
}

/// The name of a file without what means nothing; none for a directory. Everything else is refused.
pub(super) fn plain(name: &[u8], kind: EntryType) -> io::Result<Option<String>> {
    let bad = |why: &str| {
        let name = name.escape_ascii().to_string();
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("entry {name:?} {why}")))
    };
    if kind.is_pax_global_extensions() {
        return Ok(None);
    }
    if !kind.is_file() && !kind.is_dir() && !kind.is_contiguous() {
        return bad("is neither a file nor a directory");
    }
    let Ok(text) = std::str::from_utf8(name) else { return bad("is not text") };
    let text = text.strip_prefix("./").unwrap_or(text);
    let text = if kind.is_dir() { text.trim_end_matches('/') } else { text };
    if text.starts_with('/') || text.contains('\0') || text.split('/').any(|part| part == "..") {
        return bad("leads out of the archive");
    }
    if kind.is_dir() {
        return Ok(None);
    }
    if text.split('/').any(|part| part.is_empty() || part == ".") {
        return bad("has no proper name");
    }
    if text == REMOVED {
        return bad("lists removed files, which is not understood");
    }
    if text.strip_prefix("checkpoint/").is_some_and(|image| image.contains('/')) {
        return bad("is no image: those lie side by side");
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const CONFIG: &str = r#"{"name":"n","rootfsImageRef":"sha256:0","unknown":1}"#;

    /// An archive with these entries, by name and content; without content it is of the kind.
    fn archive(dir: &Path, entries: &[(&str, EntryType, &[u8])]) -> String {
        let path = dir.join("given.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for (name, kind, data) in entries {
            let mut header = tar::Header::new_gnu();
            // Not by the crate's own way, which refuses what is tried here.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o4777);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("/etc/shadow").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap();
        path.to_str().unwrap().to_owned()
    }

    const GOOD: [(&str, EntryType, &[u8]); 5] = [
        ("checkpoint/", EntryType::Directory, b""),
        ("./checkpoint/core-1.img", EntryType::Regular, b"memory"),
        ("config.dump", EntryType::Regular, CONFIG.as_bytes()),
        ("spec.dump", EntryType::Regular, b"{}"),
        ("rootfs-diff.tar", EntryType::Regular, b"layer"),
    ];

    #[test]
    fn what_is_packed_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("checkpoint")).unwrap();
        fs::create_dir(&to).unwrap();
        for (name, data) in
            [("checkpoint/core-1.img", "m"), ("config.dump", CONFIG), ("spec.dump", "{}"), (CHANGES, "l")]
        {
            fs::write(from.join(name), data).unwrap();
        }
        fs::write(dir.path().join("log"), "said").unwrap();
        let at = dir.path().join("out.tar");
        fs::write(&at, "what was there before").unwrap();
        let note = dir.path().join("note");
        pack(&from, dir.path().join("log").to_str().unwrap(), &at, &note).unwrap();
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o600);
        let path = at.to_str().unwrap();
        let mut names = Vec::new();
        each("f", path, &mut |name, _| {
            names.push(name.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(names, ["checkpoint/core-1.img", "config.dump", "rootfs-diff.tar", "spec.dump", "container.log"]);
        assert_eq!(peek("f", path).unwrap().config.name, "n");
        unpack("f", path, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("checkpoint/core-1.img")).unwrap(), "m");
        assert_eq!(capture::names(&to).unwrap(), ["checkpoint", CHANGES]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "nothing half-written is left");
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("out.tar");
        fs::write(&at, "old").unwrap();
        pack(&dir.path().join("none"), "", &at, &dir.path().join("note")).unwrap_err();
        assert_eq!((fs::read_to_string(&at).unwrap().as_str(), fs::read_dir(dir.path()).unwrap().count()), ("old", 1));
    }

    #[test]
    fn good_archives_of_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let more = [("artifacts/x", EntryType::Regular, &b"x"[..]), ("bind.mounts", EntryType::Regular, b"[]")];
        let path = archive(dir.path(), &[&GOOD[..], &more].concat());
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        unpack("f", &path, &to).unwrap();
        assert_eq!(capture::names(&to).unwrap(), ["checkpoint", CHANGES]);
        let image = to.join("checkpoint/core-1.img");
        assert_eq!(fs::metadata(&image).unwrap().permissions().mode() & 0o7777, 0o600, "whatever the archive says");
        assert_eq!(fs::read(image).unwrap(), b"memory");
    }

    #[test]
    fn hostile_archives_are_refused_as_a_whole() {
        let bad: [(&str, EntryType, &str); 12] = [
            ("checkpoint/pages-1.img", EntryType::Symlink, "neither a file nor a directory"),
            ("checkpoint/pages-1.img", EntryType::Link, "neither a file nor a directory"),
            ("checkpoint/pages-1.img", EntryType::Char, "neither a file nor a directory"),
            ("checkpoint/pages-1.img", EntryType::Fifo, "neither a file nor a directory"),
            ("checkpoint", EntryType::Symlink, "neither a file nor a directory"),
            ("../escape", EntryType::Regular, "leads out of the archive"),
            ("checkpoint/../../escape", EntryType::Regular, "leads out of the archive"),
            ("/etc/escape", EntryType::Regular, "leads out of the archive"),
            ("checkpoint/a/b", EntryType::Regular, "is no image"),
            ("checkpoint//b", EntryType::Regular, "no proper name"),
            ("deleted.files", EntryType::Regular, "lists removed files"),
            ("checkpoint/core-1.img", EntryType::Regular, "exists"),
        ];
        for (name, kind, why) in bad {
            let dir = tempfile::tempdir().unwrap();
            let path = archive(dir.path(), &[&GOOD[..], &[(name, kind, &b""[..])]].concat());
            let to = dir.path().join("to");
            fs::create_dir(&to).unwrap();
            let error = unpack("config.image.image", &path, &to).unwrap_err();
            let said = error.chain();
            assert!(said.starts_with("config.image.image: ") && said.contains(why), "{name}: {said}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "{name}: nothing was made beside");
        }
    }

    #[test]
    fn what_is_no_checkpoint_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let check = |path: &str, why: &str| {
            let error = peek("f", path).unwrap_err().chain();
            assert!(error.contains(why), "{error}");
        };
        check(&archive(dir.path(), &GOOD[..2]), "no config.dump");
        check(&archive(dir.path(), &GOOD[..3]), "no spec.dump");
        check(
            &archive(dir.path(), &[&GOOD[..3], &[("spec.dump", EntryType::Regular, &b"{"[..])]].concat()),
            "spec.dump in it",
        );
        let cut = archive(dir.path(), &GOOD[..3]);
        File::options().write(true).open(&cut).unwrap().set_len(4 * 512 + 3).unwrap();
        check(&cut, "it ends early");
        check(dir.path().to_str().unwrap(), "not a plain file");
        check(dir.path().join("none").to_str().unwrap(), "can't be restored from");
        let huge = vec![b'x'; usize::try_from(RECORD).unwrap() + 1];
        check(&archive(dir.path(), &[("././@LongLink", EntryType::GNULongName, &huge)]), "a record in it is too long");
        fs::write(dir.path().join("noise"), vec![7; 4096]).unwrap();
        check(dir.path().join("noise").to_str().unwrap(), "can't be restored from");
        std::os::unix::fs::symlink("noise", dir.path().join("link")).unwrap();
        check(dir.path().join("link").to_str().unwrap(), "can't be restored from");
    }
}
