//! What can go wrong with the file, and the codes that callers see.

use kevel_model::{Code, Error};

/// A failure of the database itself; failures of the work that runs on it are the work's.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Another process, or another handle, has the file.
    #[error("opening database {0}: another process has it open")]
    Busy(String),
    /// The file can't be opened.
    #[error("opening database {name}")]
    Open {
        /// The file.
        name: String,
        /// What redb said.
        #[source]
        source: redb::DatabaseError,
    },
    /// The file belongs to something else.
    #[error("opening database {name}: it holds {found:?}, not {wanted:?}")]
    Schema {
        /// The file.
        name: String,
        /// The schema in it.
        found: String,
        /// The schema asked for.
        wanted: &'static str,
    },
    /// A newer program wrote the file.
    #[error("opening database {name}: its version is {found}, and this program knows up to {known}")]
    Newer {
        /// The file.
        name: String,
        /// The version in it.
        found: u64,
        /// The newest version known.
        known: u64,
    },
    /// A read or write failed.
    #[error("{doing}")]
    Access {
        /// What was being done.
        doing: &'static str,
        /// What redb said.
        #[source]
        source: redb::Error,
    },
    /// A record does not decode.
    #[error("decoding a record of table {table}")]
    Decode {
        /// The table.
        table: &'static str,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
}

impl DatabaseError {
    pub(crate) fn open(name: &str, source: redb::DatabaseError) -> Self {
        let name = name.to_owned();
        match source {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::Busy(name),
            source => Self::Open { name, source },
        }
    }

    /// Wraps whatever redb says while `doing` something.
    pub(crate) fn access<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Access { doing, source: source.into() }
    }

    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Unavailable,
            Self::Schema { .. } | Self::Newer { .. } => Code::FailedPrecondition,
            Self::Open { source: redb::DatabaseError::Storage(redb::StorageError::Corrupted(_)), .. }
            | Self::Access { source: redb::Error::Corrupted(_), .. }
            | Self::Decode { .. } => Code::DataLoss,
            Self::Open { .. } | Self::Access { .. } => Code::Unavailable,
        }
    }
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        let text = error.to_string();
        let code = error.code();
        // The text stands in front already; what follows it is the cause.
        match error {
            DatabaseError::Open { source, .. } => Self::new(code, text).with_source(source),
            DatabaseError::Access { source, .. } => Self::new(code, text).with_source(source),
            DatabaseError::Decode { source, .. } => Self::new(code, text).with_source(source),
            DatabaseError::Busy(_) | DatabaseError::Schema { .. } | DatabaseError::Newer { .. } => {
                Self::new(code, text)
            }
        }
    }
}
