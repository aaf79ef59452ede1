//! How publishing, removing and listing fail, by what the caller can do about it.

use std::io;

use super::reason::Reason;
use super::redact::redact;

/// A failure to change or list what is stored.
///
/// Looking a sidecar up does not fail: whatever goes wrong there is a [`Reason`](super::Reason) to answer the file
/// exactly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Free space and try again. What was there before is untouched.
    #[error("no space left to write {at}; free some, or point hnsw.sidecar_dir or hnsw.cache_dir elsewhere")]
    NoSpace {
        /// What was being written.
        at: String,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Give the process the right to write there, or choose another place.
    #[error("no permission to write {at} ({source}); set hnsw.sidecar_dir to a place that can be written")]
    Denied {
        /// What was being written or removed.
        at: String,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody who cannot write the Parquet file could write there. Remove the directory, or choose another place.
    #[error("{at} is not written, as its directory is not to be trusted ({detail}); set hnsw.sidecar_dir")]
    Untrusted {
        /// What was being written or removed.
        at: String,
        /// Which directory, and why.
        detail: String,
    },
    /// Remove what is there.
    #[error("{at} is {found} and not a sidecar; remove it")]
    InTheWay {
        /// Where the sidecar should be.
        at: String,
        /// What is there instead.
        found: String,
    },
    /// Choose another directory for local copies, or mend this one.
    #[error("no local copy of {at} can be kept ({detail}); check hnsw.cache_dir")]
    Cache {
        /// What was to be published.
        at: String,
        /// What the system said.
        detail: String,
    },
    /// Wait for the other builder.
    #[error("{at} is being built by another session; wait for it, or try again")]
    Busy {
        /// The sidecar.
        at: String,
    },
    /// Another builder was faster; its sidecar stands.
    #[error("{at} was published by another session meanwhile; its index stands")]
    Superseded {
        /// The sidecar.
        at: String,
    },
    /// Build the index again: it may describe a mixture of the old file and the new one.
    #[error("the Parquet file changed while {at} was built; build it again")]
    SourceChanged {
        /// The sidecar.
        at: String,
    },
    /// The store did not answer or failed; trying again may help.
    #[error("the store failed at {at}: {source}; try again")]
    Unavailable {
        /// What was being done.
        at: String,
        /// What the store said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Change the argument.
    #[error("{0}")]
    BadName(String),
    /// The index could not be turned into bytes.
    #[error("writing {at}: {source}")]
    Write {
        /// What was being written.
        at: String,
        /// What the writer said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call can succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Busy { .. } | StoreError::Unavailable { .. })
    }

    /// What a reason for not reading means for writing.
    pub(super) fn reason(at: impl ToString, reason: Reason) -> Self {
        let at = at.to_string();
        match reason {
            Reason::Cache { detail } => StoreError::Cache { at, detail },
            other => StoreError::Unavailable {
                at,
                source: other.to_string().into(),
            },
        }
    }

    pub(super) fn io(at: impl ToString, source: io::Error) -> Self {
        let at = at.to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::NoSpace {
                    at,
                    source: source.into(),
                }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::Denied {
                at,
                source: source.into(),
            },
            io::ErrorKind::IsADirectory => StoreError::InTheWay {
                at,
                found: "a directory".to_owned(),
            },
            io::ErrorKind::InvalidFilename => StoreError::BadName(format!("{at}: the name is too long")),
            _ => StoreError::Unavailable {
                at,
                source: source.into(),
            },
        }
    }

    pub(super) fn object(at: impl ToString, source: object_store::Error) -> Self {
        let at = at.to_string();
        let text = redact(&source.to_string());
        match source {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                StoreError::Denied {
                    at,
                    source: text.into(),
                }
            }
            object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. } => {
                StoreError::Superseded { at }
            }
            object_store::Error::InvalidPath { .. } => StoreError::BadName(format!("{at}: {text}")),
            _ => StoreError::Unavailable {
                at,
                source: text.into(),
            },
        }
    }
}
