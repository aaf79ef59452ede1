//! Open sidecars: mapped files, kept open within a budget and shared by all queries.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::ball::{BALL, Ball};
use super::integrity::{Bytes, Integrity};
use super::options::{Load, MemoryGrant};
use super::reason::{Reason, compare};
use crate::format::{FormatError, SourceIdentity, View};
use crate::hnsw::{SearchError, SearchOptions, SearchOutcome, VectorMetric};
use crate::id::RowId;
use crate::loader::{HeapLoader, LoadError, SidecarBytes, open_mapped};
use crate::stamp::Stamp;

/// A sidecar that is open: where it lies or in its local copy, mapped or read to memory.
///
/// Whoever holds it may use it, also after the file was replaced or removed; but not without asking
/// [`usable`](Self::usable) before each search.
pub struct Sidecar {
    index: View<SidecarBytes>,
    url: String,
    bytes: u64,
    loaded_from: LoadedFrom,
    ball: Option<Ball>,
    /// The file that was opened.
    path: PathBuf,
    stamp: Stamp,
    integrity: Arc<Integrity>,
    /// Whether the file was changed in place while it was open.
    is_changed: AtomicBool,
    /// What a copy on the heap was granted.
    memory: Option<MemoryGrant>,
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
    pub(crate) fn open(path: &Path, load: &Load) -> Result<Self, Reason> {
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
        Self::of_file(&file, path, &path.to_string_lossy(), LoadedFrom::Local, load)
    }

    /// Opens a file at `path` that is the sidecar at `url` or a copy of it.
    pub(crate) fn of_file(
        file: &File,
        path: &Path,
        url: &str,
        loaded_from: LoadedFrom,
        load: &Load,
    ) -> Result<Self, Reason> {
        let meta = file.metadata().map_err(|error| io_reason(&error))?;
        let stamp = loaded_from.stamp(&meta);
        let (index, memory) = match load {
            Load::Mmap => (open_mapped(file), None),
            Load::Memory(source) => {
                let memory = source
                    .take(meta.len())
                    .ok_or(Reason::NoMemory { bytes: meta.len() })?;
                (HeapLoader::from_file(file), Some(memory))
            }
        };
        let index = index.map_err(load_reason)?;
        let ball = index
            .meta()
            .properties
            .get(BALL)
            .and_then(|text| Ball::from_text(text));
        Ok(Self {
            index,
            url: url.to_owned(),
            bytes: meta.len(),
            loaded_from,
            ball,
            integrity: Integrity::of(path, stamp),
            path: path.to_owned(),
            stamp,
            is_changed: AtomicBool::new(false),
            memory,
        })
    }

    /// The index, searched in place.
    pub fn index(&self) -> &View<SidecarBytes> {
        &self.index
    }

    /// Whether it was read to memory, so that nothing that happens to the file matters.
    pub fn is_in_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether every byte was compared with the checksums, and agreed.
    pub fn is_verified(&self) -> bool {
        self.integrity.is_whole()
    }

    /// Why it cannot be used for a search now, though it was opened: damage that was found since, or a file that was
    /// changed in place under its map.
    ///
    /// Costs one `stat`. A file that was replaced or removed does not matter: its bytes stay as long as they are mapped.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn usable(&self) -> Result<(), Reason> {
        if !self.is_in_memory()
            && std::fs::metadata(&self.path).is_ok_and(|meta| {
                let now = self.loaded_from.stamp(&meta);
                now.is_same_file(&self.stamp) && now != self.stamp
            })
        {
            self.is_changed.store(true, Ordering::Release);
        }
        self.damage().map_or(Ok(()), Err)
    }

    /// Why it cannot be used, as far as that is known without looking at the file.
    pub fn damage(&self) -> Option<Reason> {
        if self.is_changed.load(Ordering::Acquire) {
            return Some(Reason::Damaged {
                section: "file".to_owned(),
                detail: "it was changed in place while it was open".to_owned(),
            });
        }
        self.integrity.damage().cloned()
    }

    /// Notes damage that a search came upon: from now on every lookup tells of it.
    pub fn note_damage(&self, section: &str, detail: &str) {
        tracing::warn!(url = %self.url, section, detail, "the sidecar is damaged; answering exactly");
        self.integrity.set_damage(section, detail);
    }

    /// Whether the vectors of rows may be given out from here: they are stored as they were, and either each has a
    /// checksum of its own or all bytes were checked.
    pub fn gives_vectors(&self) -> bool {
        self.index.has_vectors() && (self.index.has_row_sums() || self.is_verified())
    }

    /// Whether the vector of a row is the one that was stored for it, as far as its checksum tells; notes the damage
    /// if not.
    pub fn row_agrees(&self, row: RowId) -> bool {
        let agrees = self.index.row_agrees(row);
        if !agrees {
            self.note_damage(
                "vectors",
                &format!("the vector of row {} has another checksum", row.get()),
            );
        }
        agrees
    }

    pub(super) fn integrity(&self) -> &Arc<Integrity> {
        &self.integrity
    }

    /// The file that was opened, if it still has its name.
    pub(super) fn reopened(&self) -> Option<File> {
        let file = File::open(&self.path).ok()?;
        let now = self.loaded_from.stamp(&file.metadata().ok()?);
        (now == self.stamp).then_some(file)
    }

    /// Reads and checks every byte that was not checked yet, as long as `go_on` says so.
    pub(super) fn check_bytes(&self, go_on: impl Fn() -> bool) {
        let checksums = self.index.checksums();
        let file = if self.is_in_memory() {
            None
        } else {
            self.reopened()
        };
        let bytes = match &file {
            Some(file) => Bytes::of_file(file),
            None => Bytes::Memory(self.index.as_bytes()),
        };
        self.integrity.check(checksums, bytes, go_on);
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
    type Target = View<SidecarBytes>;

    fn deref(&self) -> &View<SidecarBytes> {
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

impl LoadedFrom {
    fn stamp(self, meta: &std::fs::Metadata) -> Stamp {
        match self {
            LoadedFrom::Local => Stamp::of(meta),
            LoadedFrom::Cache | LoadedFrom::Fetched => Stamp::of(meta).without_change_time(),
        }
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
