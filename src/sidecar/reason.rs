//! Why a sidecar was not used, as a stable code and as a sentence.

use std::borrow::Cow;
use std::fmt;

use crate::format::SourceIdentity;
use crate::hnsw::VectorMetric;

/// Why a file is answered without its sidecar.
///
/// None of these is an error: the file is answered exactly, and EXPLAIN shows [`code`](Reason::code).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is none.
    NoSidecar,
    /// There is none for this metric, but for others.
    MetricMismatch {
        /// The metric asked for.
        wanted: VectorMetric,
        /// The metrics of the column that do have a sidecar.
        found: Vec<VectorMetric>,
    },
    /// The file of this name indexes another column.
    ColumnMismatch {
        /// The column asked for.
        wanted: String,
        /// The column in the sidecar.
        found: String,
    },
    /// It describes other bytes than the Parquet file has now.
    Stale(Stale),
    /// Its bytes are not those of a sidecar, or were changed.
    Damaged {
        /// The part that does not hold.
        section: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It was written by a later version of this crate.
    NewerFormat {
        /// What the version found was.
        detail: String,
    },
    /// The store did not deliver it; asked again after a while.
    Unavailable {
        /// What the store said.
        detail: String,
    },
    /// It may not be read.
    Denied {
        /// What the system said.
        detail: String,
    },
    /// Somebody who cannot write the Parquet file could have written it.
    Untrusted {
        /// Which directory, and why.
        detail: String,
    },
    /// The file has another e-tag, and whether its bytes are still those that were indexed is being found out.
    Checking,
    /// It is to be read to memory, and there is not enough of it.
    NoMemory {
        /// How many bytes it has.
        bytes: u64,
    },
    /// There is no room or no right to keep a local copy of it.
    Cache {
        /// What the system said.
        detail: String,
    },
}

/// In what a Parquet file differs from the one that was indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stale {
    /// Its length.
    Size {
        /// Bytes when indexed.
        indexed: u64,
        /// Bytes now.
        found: u64,
    },
    /// Its footer.
    Footer,
    /// Its number of rows.
    Rows {
        /// Rows when indexed.
        indexed: u64,
        /// Rows now.
        found: u64,
    },
    /// Its e-tag or version.
    ETag,
    /// Its bytes, though its size and footer are the same.
    Content,
    /// The sidecar is not about one file.
    Source {
        /// How many files share its graph.
        files: usize,
    },
}

impl Reason {
    /// The name under which EXPLAIN and the sql-tests know this reason.
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Reason::NoSidecar => "no_sidecar",
            Reason::MetricMismatch { .. } => "metric_mismatch",
            Reason::ColumnMismatch { .. } => "column_mismatch",
            Reason::Stale(Stale::Size { .. }) => "stale:size",
            Reason::Stale(Stale::Footer) => "stale:footer",
            Reason::Stale(Stale::Rows { .. }) => "stale:rows",
            Reason::Stale(Stale::ETag) => "stale:etag",
            Reason::Stale(Stale::Content) => "stale:content",
            Reason::Stale(Stale::Source { .. }) => "stale:source",
            Reason::Damaged { section, .. } => return Cow::Owned(format!("damaged:{section}")),
            Reason::NewerFormat { .. } => "newer_format",
            Reason::Unavailable { .. } => "unavailable",
            Reason::Denied { .. } => "denied",
            Reason::Untrusted { .. } => "untrusted",
            Reason::Checking => "checking",
            Reason::NoMemory { .. } => "no_memory",
            Reason::Cache { .. } => "cache_unusable",
        })
    }

    /// Whether the sidecar exists but cannot be used, which somebody may want to mend.
    pub fn is_worth_a_warning(&self) -> bool {
        !matches!(
            self,
            Reason::NoSidecar | Reason::MetricMismatch { .. } | Reason::Checking
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoSidecar => write!(f, "the file has no sidecar for this column"),
            Reason::MetricMismatch { wanted, found } => {
                let found: Vec<_> = found.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "the column is indexed for {} but not for {wanted}",
                    found.join(", ")
                )
            }
            Reason::ColumnMismatch { wanted, found } => {
                write!(
                    f,
                    "the sidecar indexes column {found:?} instead of {wanted:?}; rebuild the index"
                )
            }
            Reason::Stale(stale) => write!(f, "{stale}; rebuild the index"),
            Reason::Damaged { section, detail } => {
                write!(
                    f,
                    "the sidecar is damaged in its {section} ({detail}); rebuild the index"
                )
            }
            Reason::NewerFormat { detail } => {
                write!(
                    f,
                    "the sidecar was written by a later version ({detail}); upgrade, or rebuild the index"
                )
            }
            Reason::Unavailable { detail } => {
                write!(
                    f,
                    "the sidecar could not be fetched ({detail}); asked again later"
                )
            }
            Reason::Untrusted { detail } => {
                write!(
                    f,
                    "the sidecar's directory is not to be trusted ({detail}); remove it, or set hnsw.sidecar_dir"
                )
            }
            Reason::Denied { detail } => {
                write!(f, "the sidecar may not be read ({detail}); check its permissions")
            }
            Reason::Checking => write!(f, "the file is being compared with what was indexed"),
            Reason::NoMemory { bytes } => {
                write!(
                    f,
                    "there is no memory for the {bytes} bytes of the sidecar; set hnsw.load = 'mmap', or give the \
                     memory pool more"
                )
            }
            Reason::Cache { detail } => {
                write!(
                    f,
                    "no local copy of the sidecar could be kept ({detail}); check hnsw.cache_dir"
                )
            }
        }
    }
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stale::Size { indexed, found } => {
                write!(
                    f,
                    "the sidecar describes a file of {indexed} bytes but it has {found}"
                )
            }
            Stale::Footer => write!(f, "the Parquet footer is not the one that was indexed"),
            Stale::Rows { indexed, found } => {
                write!(
                    f,
                    "the sidecar describes {indexed} rows but the Parquet file has {found}"
                )
            }
            Stale::ETag => write!(f, "the file was replaced since it was indexed (another e-tag)"),
            Stale::Content => write!(f, "the bytes of the file are not those that were indexed"),
            Stale::Source { files: 0 } => write!(f, "the sidecar does not say which file it describes"),
            Stale::Source { files } => write!(
                f,
                "the sidecar holds one graph over {files} files, and this version searches graphs of one file"
            ),
        }
    }
}

/// In what the file at hand differs from the indexed one, if in anything.
///
/// The file's name is not compared: a Parquet file renamed together with its sidecar keeps its index. An e-tag
/// counts only when both sides know one.
pub(super) fn compare(indexed: &[SourceIdentity], found: &SourceIdentity) -> Result<(), Stale> {
    // The format has room for one graph over many files; what a reader would have to do, docs/STORAGE.md says.
    let [indexed] = indexed else {
        return Err(Stale::Source { files: indexed.len() });
    };
    if indexed.size != found.size {
        return Err(Stale::Size {
            indexed: indexed.size,
            found: found.size,
        });
    }
    if indexed.rows != found.rows {
        return Err(Stale::Rows {
            indexed: indexed.rows,
            found: found.rows,
        });
    }
    if indexed.footer_hash != found.footer_hash {
        return Err(Stale::Footer);
    }
    match (&indexed.e_tag, &found.e_tag) {
        (Some(before), Some(now)) if before != now => Err(Stale::ETag),
        _ => Ok(()),
    }
}
