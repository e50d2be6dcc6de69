//! A layer into a directory: where a snapshot's mounts are written, and the pipe from an async source to the applier,
//! which blocks.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf as _, Bytes};
use kevel_diff::{Form, Layer, Options, Processors, apply_layer};
use kevel_model::{Descriptor, Error, Mount, Result};
use kevel_mount::TempMount;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Pieces on their way to an applier.
const PIECES: usize = 16;

/// A piece of a layer, or its end. Bytes count against the node's budget until they are used up.
pub(crate) enum Piece {
    Data(Bytes, Option<OwnedSemaphorePermit>),
    End,
}

/// The blocking end of the pipe. A pipe that is dropped without [`Piece::End`] is an error to the reader: a layer that
/// broke off must not look complete.
pub(crate) struct Pipe {
    pieces: mpsc::Receiver<Piece>,
    now: Bytes,
    held: Option<OwnedSemaphorePermit>,
    ended: bool,
    signal: Arc<Signal>,
}

/// What both ends of a pipe know.
#[derive(Default)]
pub(crate) struct Signal {
    /// The reader found the pipe broken.
    pub(crate) broken: AtomicBool,
    /// The reader shall stop at the next piece.
    pub(crate) halt: AtomicBool,
}

/// A pipe: where pieces go in, where they come out, and what is known of it.
pub(crate) fn pipe() -> (mpsc::Sender<Piece>, Pipe, Arc<Signal>) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let signal = Arc::new(Signal::default());
    let pipe = Pipe { pieces, now: Bytes::new(), held: None, ended: false, signal: signal.clone() };
    (sender, pipe, signal)
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() && !self.ended {
            self.held = None;
            let next = self.pieces.blocking_recv().filter(|_| !self.signal.halt.load(Ordering::Acquire));
            match next {
                Some(Piece::Data(data, permit)) => (self.now, self.held) = (data, permit),
                Some(Piece::End) => self.ended = true,
                None => {
                    self.signal.broken.store(true, Ordering::Release);
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the layer broke off"));
                }
            }
        }
        let length = self.now.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.now[..length]);
        self.now.advance(length);
        if self.now.is_empty() {
            self.held = None;
        }
        Ok(length)
    }
}

/// Where a layer is written.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A directory that needs no mount.
    Directory(PathBuf, Form, Vec<PathBuf>),
    /// The mounts themselves.
    Mounted,
}

/// Where to write what `mounts` would show. Overlay and bind mounts are written behind, which saves the mount;
/// `rebased` says that the snapshot will get its parents later, so that whiteouts must be kept.
fn place(mounts: &[Mount], rebased: bool) -> Place {
    let [mount] = mounts else { return Place::Mounted };
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    match mount.kind.as_str() {
        "bind" if mount.options.iter().all(|option| matches!(option.as_str(), "bind" | "rbind" | "rw")) => {
            let form = if rebased { Form::Overlay } else { Form::Plain };
            Place::Directory(PathBuf::from(&mount.source), form, Vec::new())
        }
        "overlay" => {
            let plain = ["userxattr", "uidmap=", "gidmap=", "metacopy=", "redirect_dir="];
            let unusual = mount.options.iter().any(|option| plain.iter().any(|name| option.starts_with(name)));
            match (option("upperdir="), option("lowerdir=")) {
                // A backslash escapes a colon in a path; such paths are left to mount(2).
                (Some(upper), Some(lower)) if !unusual && !lower.contains('\\') => {
                    let lowers = lower.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
                    Place::Directory(PathBuf::from(upper), Form::Overlay, lowers)
                }
                _ => Place::Mounted,
            }
        }
        _ => Place::Mounted,
    }
}

/// What is known of a layer that is to be applied.
pub(crate) struct How {
    pub(crate) layer: Descriptor,
    /// The snapshot gets its parent with the commit.
    pub(crate) rebased: bool,
    /// Where temporary mounts go.
    pub(crate) scratch: PathBuf,
    pub(crate) processors: Processors,
    /// Flush the file system when done.
    pub(crate) sync_fs: bool,
}

/// Applies a layer to a prepared snapshot. Blocks.
pub(crate) fn apply(source: Pipe, mounts: &[Mount], how: &How) -> Result<Layer> {
    match place(mounts, how.rebased) {
        Place::Directory(directory, form, lowers) => {
            let options = Options { form, lowers, ..Options::default() };
            apply_at(source, how, &directory, &options)
        }
        Place::Mounted if how.rebased => {
            let kinds: Vec<&str> = mounts.iter().map(|mount| mount.kind.as_str()).collect();
            Err(Error::unimplemented(format!("unpacking a layer without its parent into mounts of type {kinds:?}")))
        }
        Place::Mounted => {
            let mounted = TempMount::new(&how.scratch, mounts)?;
            let layer = apply_at(source, how, mounted.path(), &Options::default())?;
            mounted.close()?;
            Ok(layer)
        }
    }
}

fn apply_at(source: Pipe, how: &How, directory: &Path, options: &Options) -> Result<Layer> {
    let root = File::open(directory).map_err(|error| Error::io(format!("opening {}", directory.display()), error))?;
    let archive = how.processors.open(source, &how.layer, &BTreeMap::new())?;
    let layer = apply_layer(archive.source, &archive.media_type, &root, options)?;
    if how.sync_fs {
        rustix::fs::syncfs(&root)
            .map_err(|error| Error::io(format!("flushing {}", directory.display()), error.into()))?;
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_written_behind_where_that_is_the_same() {
        let mount = |kind: &str, source: &str, options: &[&str]| Mount {
            kind: kind.into(),
            source: source.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        };
        let directory = |path: &str, form, lowers: &[&str]| {
            Place::Directory(path.into(), form, lowers.iter().map(PathBuf::from).collect())
        };
        let bind = mount("bind", "/s/1/fs", &["rw", "rbind"]);
        assert_eq!(place(std::slice::from_ref(&bind), false), directory("/s/1/fs", Form::Plain, &[]));
        assert_eq!(place(&[bind], true), directory("/s/1/fs", Form::Overlay, &[]));
        let layers = ["workdir=/w", "upperdir=/u", "lowerdir=/b:/a"];
        let overlay = mount("overlay", "overlay", &layers);
        assert_eq!(place(std::slice::from_ref(&overlay), false), directory("/u", Form::Overlay, &["/b", "/a"]));
        for mounts in [
            vec![],
            vec![overlay.clone(), overlay],
            vec![mount("ext4", "/dev/x", &[])],
            vec![mount("bind", "/s", &["ro", "rbind"])],
            vec![mount("overlay", "overlay", &["lowerdir=/a:/b"])],
            vec![mount("overlay", "overlay", &[&layers[..], &["userxattr"]].concat())],
        ] {
            assert_eq!(place(&mounts, false), Place::Mounted, "{mounts:?}");
        }
    }

    #[test]
    fn a_pipe_that_breaks_is_an_error() {
        let (sender, mut pipe, signal) = pipe();
        sender.blocking_send(Piece::Data(Bytes::from_static(b"ab"), None)).ok().unwrap();
        drop(sender);
        let mut buffer = [0; 8];
        assert_eq!(pipe.read(&mut buffer).unwrap(), 2);
        assert!(pipe.read(&mut buffer).is_err());
        assert!(signal.broken.load(Ordering::Acquire));
    }
}
