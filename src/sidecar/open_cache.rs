//! Open sidecars: mapped files, kept open within a budget and shared by all queries.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::ball::{BALL, Ball};
use super::reason::{Reason, compare};
use crate::format::{FormatError, SourceIdentity};
use crate::hnsw::{SearchError, SearchOptions, SearchOutcome, VectorMetric};
use crate::loader::{LoadError, MappedIndex, MmapLoader};
use crate::stamp::Stamp;

/// A sidecar that is open: mapped where it lies, or in its local copy.
///
/// Whoever holds it may use it, also after the file was replaced or removed.
pub struct Sidecar {
    index: MappedIndex,
    url: String,
    bytes: u64,
    loaded_from: LoadedFrom,
    ball: Option<Ball>,
}

/// Where the bytes of an open sidecar came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadedFrom {
    /// Mapped where it lies.
    Local,
    /// Mapped in a local copy that was there already.
    Cache,
    /// Fetched from its store and mapped in the new copy.
    Fetched,
}

impl Sidecar {
    /// Opens the sidecar at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, Reason> {
        // Opening a pipe would wait for its writer.
        if !std::fs::metadata(path)
            .map_err(|error| io_reason(&error))?
            .is_file()
        {
            return Err(Reason::Damaged {
                section: "file".to_owned(),
                detail: "not a regular file".to_owned(),
            });
        }
        let file = File::open(path).map_err(|error| io_reason(&error))?;
        Self::map(&file, &path.to_string_lossy(), LoadedFrom::Local)
    }

    /// Maps a file that is the sidecar at `url` or a copy of it.
    pub(crate) fn map(file: &File, url: &str, loaded_from: LoadedFrom) -> Result<Self, Reason> {
        let bytes = file.metadata().map_err(|error| io_reason(&error))?.len();
        let index = MmapLoader::from_file(file).map_err(load_reason)?;
        let ball = index
            .meta()
            .properties
            .get(BALL)
            .and_then(|text| Ball::from_text(text));
        Ok(Self {
            index,
            url: url.to_owned(),
            bytes,
            loaded_from,
            ball,
        })
    }

    /// The index, searched in place.
    pub fn index(&self) -> &MappedIndex {
        &self.index
    }

    /// The address of the sidecar: a path of the local file system, or a URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The size of the sidecar.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its bytes came from when it was opened.
    pub fn loaded_from(&self) -> LoadedFrom {
        self.loaded_from
    }

    /// A ball around the vectors that it links, if one was stored with it.
    pub fn ball(&self) -> Option<&Ball> {
        self.ball.as_ref()
    }

    /// The rows nearest to `query`; tells of the search in a trace, of how much work it was but not of what was asked.
    ///
    /// # Errors
    ///
    /// As the search of the [index](crate::format::View::search).
    pub fn search(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<SearchOutcome, SearchError> {
        let span = tracing::trace_span!("search", url = %self.url, k = options.k, ef = options.ef);
        let _entered = span.enter();
        let outcome = self.index.search(query, options)?;
        tracing::trace!(
            filtered = options.allowed.is_some(),
            hits = outcome.hits.len(),
            nodes = outcome.stats.nodes_visited,
            distances = outcome.stats.distances,
            reranked = outcome.stats.reranked,
            exact = outcome.stats.exact,
            "searched a sidecar"
        );
        Ok(outcome)
    }

    /// Whether this is the index of this column for this metric over exactly these bytes.
    ///
    /// # Errors
    ///
    /// The reason if it is not.
    pub fn check(&self, column: &str, metric: VectorMetric, found: &SourceIdentity) -> Result<(), Reason> {
        let meta = self.index.meta();
        if meta.table_column != column {
            return Err(Reason::ColumnMismatch {
                wanted: column.to_owned(),
                found: meta.table_column.clone(),
            });
        }
        if self.index.metric() != metric {
            return Err(Reason::MetricMismatch {
                wanted: metric,
                found: vec![self.index.metric()],
            });
        }
        compare(&meta.sources, found).map_err(Reason::Stale)
    }
}

impl Deref for Sidecar {
    type Target = MappedIndex;

    fn deref(&self) -> &MappedIndex {
        &self.index
    }
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sidecar")
            .field("url", &self.url)
            .field("bytes", &self.bytes)
            .field("loaded_from", &self.loaded_from)
            .finish_non_exhaustive()
    }
}

/// What a failure to read a file means for a query.
pub(crate) fn io_reason(error: &io::Error) -> Reason {
    match error.kind() {
        // A name too long for the file system was never published there either.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            Reason::NoSidecar
        }
        io::ErrorKind::PermissionDenied => Reason::Denied {
            detail: error.to_string(),
        },
        _ => Reason::Unavailable {
            detail: error.to_string(),
        },
    }
}

/// What bytes that do not open mean for a query.
pub(crate) fn load_reason(error: LoadError) -> Reason {
    match error {
        LoadError::Io(error) => io_reason(&error),
        LoadError::Format(FormatError::Damaged { section, reason }) => Reason::Damaged {
            section: section.to_owned(),
            detail: reason,
        },
        LoadError::Format(FormatError::Newer { found, known }) => Reason::NewerFormat {
            detail: format!("version {found}, and versions up to {known} are known here"),
        },
        LoadError::Format(error) => Reason::Damaged {
            section: "start".to_owned(),
            detail: error.to_string(),
        },
    }
}

/// The sidecars that are open, and what is known about those that would not open.
#[derive(Debug, Default)]
pub(crate) struct OpenSidecars {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: HashMap<String, Slot>,
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    stamp: Option<Stamp>,
    outcome: Result<Arc<Sidecar>, Reason>,
    used: u64,
}

impl OpenSidecars {
    /// What is known of `key`, unless the file has changed since.
    ///
    /// While a sidecar is open its inode cannot be given to another file, so an equal stamp is the same file.
    pub(crate) fn get(&self, key: &str, stamp: Option<Stamp>) -> Option<Result<Arc<Sidecar>, Reason>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clock += 1;
        let now = slots.clock;
        let slot = slots.by_key.get_mut(key)?;
        if slot.stamp != stamp {
            return None;
        }
        slot.used = now;
        Some(slot.outcome.clone())
    }

    /// Keeps what came of opening `key`, and lets go of the least recently used beyond `budget`.
    pub(crate) fn put(
        &self,
        key: &str,
        stamp: Option<Stamp>,
        outcome: Result<Arc<Sidecar>, Reason>,
        budget: usize,
    ) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clock += 1;
        let used = slots.clock;
        slots.by_key.insert(key.to_owned(), Slot { stamp, outcome, used });
        if slots.by_key.len() > budget.max(1) {
            // An eighth at a time, so that a table larger than the budget does not sort it for every file.
            let keep = (budget.max(1) * 7).div_ceil(8);
            let mut ages: Vec<u64> = slots.by_key.values().map(|slot| slot.used).collect();
            ages.sort_unstable();
            let oldest_kept = ages[ages.len() - keep];
            slots.by_key.retain(|_, slot| slot.used >= oldest_kept);
        }
    }

    /// Forgets `key`.
    pub(crate) fn forget(&self, key: &str) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.by_key.remove(key);
    }

    /// How many sidecars are open here, and their bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let open = slots
            .by_key
            .values()
            .filter_map(|slot| slot.outcome.as_ref().ok());
        open.fold((0, 0), |(count, bytes), sidecar| {
            (count + 1, bytes + sidecar.bytes())
        })
    }
}
