//! The one who knows where sidecars are, and what it remembers of them.
//!
//! What it does is in `lookup` and `opening`, `list`, `publish` and `remove`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use super::open_cache::OpenSidecars;
use super::options::{Load, SidecarOptions};
use super::reason::Reason;
use super::source_hash::Contents;
use crate::sidecar::remote::listing_cache::Listings;

/// Failures and warnings remembered, of each so many.
pub(super) const REMEMBERED: usize = 10_000;

/// Finds, opens, publishes and removes sidecars; one per session or process, shared by all queries.
#[derive(Debug)]
pub struct SidecarStore {
    options: RwLock<Arc<SidecarOptions>>,
    pub(super) open: OpenSidecars,
    pub(super) listings: Listings,
    pub(super) contents: Contents,
    /// What failed a moment ago and is not tried again just yet.
    pub(super) failures: Mutex<HashMap<String, (Instant, Reason)>>,
    /// The reason last warned of, by sidecar.
    pub(super) warned: Mutex<HashMap<String, String>>,
    /// When directories were last cleaned of what dead builders left.
    pub(super) swept: Mutex<HashMap<PathBuf, Instant>>,
    /// Sidecars of remote stores that are being built in this process.
    pub(super) building: Mutex<HashSet<String>>,
    /// Sets apart the objects of stores that exist in this process only.
    pub(super) nonce: String,
    pub(super) counts: Counts,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) lookups: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) fetched: AtomicU64,
    pub(super) bytes_fetched: AtomicU64,
}

/// What a store has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Lookups answered.
    pub lookups: u64,
    /// Sidecars opened, that is mapped and checked.
    pub opened: u64,
    /// Sidecars fetched from a remote store.
    pub fetched: u64,
    /// Bytes fetched for them.
    pub bytes_fetched: u64,
    /// Sidecars open now.
    pub open_now: usize,
    /// Bytes mapped by them.
    pub bytes_open: u64,
}

impl SidecarStore {
    /// A store with these settings; touches nothing yet.
    pub fn new(options: SidecarOptions) -> Arc<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Arc::new(Self {
            options: RwLock::new(Arc::new(options)),
            open: OpenSidecars::default(),
            listings: Listings::default(),
            contents: Contents::default(),
            failures: Mutex::default(),
            warned: Mutex::default(),
            swept: Mutex::default(),
            building: Mutex::default(),
            nonce: format!("{}-{}-{count}", std::process::id(), now.as_nanos()),
            counts: Counts::default(),
        })
    }

    /// The settings.
    pub fn options(&self) -> Arc<SidecarOptions> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the settings for what comes after.
    pub fn set_options(&self, options: SidecarOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    /// Changes where local copies go and how much of them is kept, if that differs from what is set.
    pub fn set_cache(&self, dir: Option<&Path>, size: u64) {
        let now = self.options();
        if now.cache_dir.as_deref() != dir || now.cache_size != size {
            let mut options = SidecarOptions::clone(&now);
            (options.cache_dir, options.cache_size) = (dir.map(Path::to_path_buf), size);
            self.set_options(options);
        }
    }

    /// Changes how sidecars are opened and up to which size they are checked first, if that differs from what is set.
    pub fn set_load(&self, load: &Load, verify_wait: u64) {
        let now = self.options();
        if now.load.is_to_memory() != load.is_to_memory() || now.verify_wait != verify_wait {
            let mut options = SidecarOptions::clone(&now);
            (options.load, options.verify_wait) = (load.clone(), verify_wait);
            self.set_options(options);
        }
    }

    /// What this store has done so far.
    pub fn stats(&self) -> StoreStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (open_now, bytes_open) = self.open.totals();
        StoreStats {
            lookups: read(&self.counts.lookups),
            opened: read(&self.counts.opened),
            fetched: read(&self.counts.fetched),
            bytes_fetched: read(&self.counts.bytes_fetched),
            open_now,
            bytes_open,
        }
    }
}
