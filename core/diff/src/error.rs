//! Why a layer could not be applied or made.

use std::io;

use kevel_model::Code;

use crate::tar;

/// A failure that names the entry it happened at, if there was one. Names are printed with escapes: they are bytes of
/// a stranger.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive can't be read, is malformed or too large.
    #[error("reading the layer")]
    Archive(#[source] tar::Error),
    /// An entry can't mean what it says.
    #[error("entry {name:?}: {flaw}")]
    Entry {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The file system refused an entry.
    #[error("entry {name:?}: {doing}")]
    Place {
        /// The entry's name.
        name: String,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something failed that concerns no entry.
    #[error("{doing}")]
    Io {
        /// What was being done to what.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The compressed stream is damaged.
    #[error("decompressing the layer")]
    Decompress(#[source] io::Error),
    /// The stream grows so much when decompressed that it must be an attack.
    #[error("layer decompresses to more than {0} times its size")]
    Ratio(u64),
    /// The layer is of a kind that can't be read here.
    #[error("layers of type {0:?} are not supported")]
    MediaType(String),
    /// The layer is compressed in a way that can't be read here.
    #[error("layers compressed with {0} are not supported")]
    Compression(&'static str),
}

/// What an entry asks for that is never done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The path has more `..` than names.
    #[error("the path leads out of the root")]
    Escape,
    /// A whiteout that hides nothing or its own directory.
    #[error("the whiteout has an impossible name")]
    Whiteout,
    /// An entry inside of a whiteout.
    #[error("a whiteout is not a directory")]
    BeneathWhiteout,
    /// The root must stay a directory.
    #[error("the root of a layer must be a directory")]
    Root,
    /// A file of a tree that would mean something else in a layer.
    #[error("the name is reserved for whiteouts")]
    Reserved,
    /// A directory of changes that can't be read without the layers below.
    #[error("overlayfs keeps what belongs here elsewhere")]
    Redirected,
    /// A hard link to its own name.
    #[error("the hard link leads to itself")]
    SelfLink,
    /// More links on the way than any real path has.
    #[error("the path has too many symbolic links")]
    Links,
    /// Following links makes the path longer than the limit.
    #[error("the path is too long when its links are followed")]
    Length,
    /// A device number that Linux does not have.
    #[error("the device number is out of range")]
    Device,
}

impl Error {
    /// The code that fits best.
    pub fn code(&self) -> Code {
        match self {
            Self::Archive(tar::Error::Limit { .. }) | Self::Ratio(_) => Code::ResourceExhausted,
            Self::Archive(tar::Error::Malformed { .. }) | Self::Entry { .. } | Self::Decompress(_) => {
                Code::InvalidArgument
            }
            Self::MediaType(_) | Self::Compression(_) => Code::Unimplemented,
            Self::Archive(tar::Error::Read { source, .. }) | Self::Place { source, .. } | Self::Io { source, .. } => {
                match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
                    io::ErrorKind::TimedOut => Code::DeadlineExceeded,
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Code::Unavailable,
                    _ => Code::Unknown,
                }
            }
        }
    }
}

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        let (code, message) = (error.code(), error.to_string());
        match std::error::Error::source(&error) {
            // The message repeats the error itself, so its cause comes next.
            Some(source) => Self::new(code, message).with_source(chain(source)),
            None => Self::new(code, message),
        }
    }
}

/// The text of `error` and of its causes. The causes are borrowed and can't be moved out.
fn chain(mut error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text.push_str(": ");
        text.push_str(&source.to_string());
        error = source;
    }
    text
}
