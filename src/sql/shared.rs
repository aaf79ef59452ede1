//! What the queries of a session share: open sidecars, footers, filter bitmaps, and who is told of a build's progress.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use datafusion::catalog::Session;
use datafusion::common::{Result, config_datafusion_err};
use datafusion::execution::memory_pool::MemoryPool;

use super::options::HnswOptions;
use crate::create::ProgressFn;
use crate::rows::columns::ColumnCache;
use crate::rows::filter::FilterCache;
use crate::rows::footer::FooterCache;
use crate::rows::memory::take_to_keep;
use crate::rows::source_file::LocalFiles;
use crate::sidecar::{MemoryGrant, MemorySource, SidecarOptions, SidecarStore};

/// The caches behind one [`register`](crate::register).
pub(crate) struct Shared {
    /// Where Parquet files lie on this machine.
    pub local_files: LocalFiles,
    /// Footers of Parquet files.
    pub footers: FooterCache,
    /// Bitmaps of filters.
    pub filters: FilterCache,
    /// Small columns of files without a page index.
    pub columns: ColumnCache,
    /// Open sidecars.
    pub sidecars: Arc<SidecarStore>,
    progress: RwLock<Option<ProgressFn>>,
    file_tables: Mutex<BTreeSet<Arc<str>>>,
    pool: Arc<dyn MemoryPool>,
}

/// Most tables known by the names of their files.
const FILE_TABLES: usize = 1024;

impl Shared {
    /// Caches that register their memory with this pool.
    pub(crate) fn new(pool: Arc<dyn MemoryPool>) -> Self {
        Self {
            local_files: LocalFiles::default(),
            footers: FooterCache::new(Arc::clone(&pool)),
            columns: ColumnCache::new(HnswOptions::default().column_cache_size as u64),
            filters: FilterCache::new(HnswOptions::default().filter_cache_size as u64),
            sidecars: SidecarStore::new(SidecarOptions::default()),
            progress: RwLock::new(None),
            file_tables: Mutex::default(),
            pool,
        }
    }

    /// The memory of sidecars that are read to the heap. They are kept, so they may take what caches may.
    pub(crate) fn memory_for_sidecars(&self) -> MemorySource {
        let pool = Arc::clone(&self.pool);
        MemorySource::new(move |bytes| {
            let bytes = usize::try_from(bytes).ok()?;
            let held = take_to_keep(&pool, "sidecars in memory", bytes)?;
            Some(Box::new(held) as MemoryGrant)
        })
    }

    /// The caches of a session that the extension was registered on.
    pub(crate) fn of(session: &dyn Session) -> Result<Arc<Self>> {
        session.config().get_extension::<Shared>().ok_or_else(|| {
            config_datafusion_err!("call datafusion_hnsw::register on the session's context first")
        })
    }

    /// Who is told how far a build is.
    pub(crate) fn progress(&self) -> Option<ProgressFn> {
        self.progress
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Remembers a table that was named by its files, and stands in no list of a catalog.
    pub(crate) fn remember_file_table(&self, name: &str) {
        let mut known = self.file_tables.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < FILE_TABLES && !known.contains(name) {
            known.insert(name.into());
        }
    }

    /// The tables that were named by their files so far, and perhaps tables that a catalog lists.
    pub(crate) fn file_tables(&self) -> Vec<Arc<str>> {
        let known = self.file_tables.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().cloned().collect()
    }

    /// Says who is told.
    pub(crate) fn set_progress(&self, progress: Option<ProgressFn>) {
        *self.progress.write().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

/// Whether a name looks like one of files, and hardly like one of a table.
pub(crate) fn is_path(name: &str) -> bool {
    name.contains('/') || name.contains('.')
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("sidecars", &self.sidecars)
            .finish_non_exhaustive()
    }
}
