//! The one who knows where sidecars are: looks them up, keeps them open, and says why one cannot be used.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use futures::{StreamExt, stream};
use object_store::ObjectMeta;

use super::cache_dir::{CacheDir, default_root};
use super::content::{CONTENT_HASH, Content, Contents};
use super::error::StoreError;
use super::fetch::{Copy, FetchError, blocking, copy_key, fetch};
use super::listing::{Listings, Patience};
use super::location::{Home, Location, RemoteDir};
use super::name::SidecarName;
use super::open::{LoadedFrom, OpenSidecars, Sidecar, Stamp, io_reason};
use super::options::SidecarOptions;
use super::reason::{Reason, Stale};
use crate::format::SourceIdentity;
use crate::hnsw::VectorMetric;

/// Warnings remembered, so that each is given once.
const WARNINGS: usize = 10_000;

/// Finds, opens, publishes and removes sidecars; one per session or process, shared by all queries.
#[derive(Debug)]
pub struct SidecarStore {
    options: RwLock<Arc<SidecarOptions>>,
    pub(super) open: OpenSidecars,
    pub(super) listings: Listings,
    contents: Contents,
    /// What failed a moment ago and is not tried again just yet.
    failures: Mutex<HashMap<String, (Instant, Reason)>>,
    /// The reason last warned of, by sidecar.
    warned: Mutex<HashMap<String, String>>,
    /// When directories were last cleaned of what dead builders left.
    pub(super) swept: Mutex<HashMap<PathBuf, Instant>>,
    /// Sidecars of remote stores that are being built in this process.
    pub(super) building: Mutex<std::collections::HashSet<String>>,
    /// Sets apart the objects of stores that exist in this process only.
    nonce: String,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    lookups: AtomicU64,
    opened: AtomicU64,
    fetched: AtomicU64,
    bytes_fetched: AtomicU64,
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

/// What became of a lookup.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The index of exactly these bytes.
    Fresh(Arc<Sidecar>),
    /// Answer the file exactly, and say why.
    Unusable(Reason),
}

impl Lookup {
    /// The sidecar, if it can be used.
    pub fn fresh(&self) -> Option<&Arc<Sidecar>> {
        match self {
            Lookup::Fresh(sidecar) => Some(sidecar),
            Lookup::Unusable(_) => None,
        }
    }

    /// The reason, if it cannot.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Lookup::Fresh(_) => None,
            Lookup::Unusable(reason) => Some(reason),
        }
    }
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
    pub fn set_cache(&self, dir: Option<&FsPath>, size: u64) {
        let now = self.options();
        if now.cache_dir.as_deref() != dir || now.cache_size != size {
            let mut options = SidecarOptions::clone(&now);
            (options.cache_dir, options.cache_size) = (dir.map(FsPath::to_path_buf), size);
            self.set_options(options);
        }
    }

    /// The sidecar of this column and metric, if there is one for exactly the bytes that `found` tells of.
    ///
    /// Costs one `stat` for a local sidecar that is open already, and nothing for a remote one. Never fails:
    /// whatever goes wrong is a reason to answer the file exactly. Warns once for each sidecar that cannot be used.
    pub async fn lookup(
        &self,
        location: &Location,
        column: &str,
        metric: VectorMetric,
        found: &SourceIdentity,
    ) -> Lookup {
        self.counts.lookups.fetch_add(1, Ordering::Relaxed);
        let name = location.sidecar_name(column, metric);
        let home = location.home();
        let looked = match self.open(&home, &name).await {
            Ok(sidecar) => self.check(sidecar, location, column, metric, found).await,
            Err(reason) => Err(reason),
        };
        match looked {
            Ok(sidecar) => {
                self.warned().remove(sidecar.url());
                Lookup::Fresh(sidecar)
            }
            Err(reason) => {
                self.warn_once(&home, &name, &reason);
                Lookup::Unusable(reason)
            }
        }
    }

    /// Looks up many files at once; the answers come in the order of the files.
    pub async fn lookup_all(
        &self,
        files: &[(Location, SourceIdentity)],
        column: &str,
        metric: VectorMetric,
    ) -> Vec<Lookup> {
        self.list_ahead(files.iter().map(|(location, _)| location), column, metric)
            .await;
        let parallel = self.options().lookup_parallel.max(1);
        let lookups = files
            .iter()
            .map(|(location, found)| self.lookup(location, column, metric, found));
        stream::iter(lookups.collect::<Vec<_>>())
            .buffered(parallel)
            .collect()
            .await
    }

    /// Lists the directories of many remote files at once, before each of them is looked up.
    ///
    /// Costs nothing for local files and for directories that were listed a short while ago.
    pub async fn list_ahead(
        &self,
        files: impl IntoIterator<Item = impl Borrow<Location>>,
        column: &str,
        metric: VectorMetric,
    ) {
        // The first local one ends it: the files of a table are all of one store.
        let remote = files.into_iter().map_while(|file| match file.borrow().home() {
            Home::Local(_) => None,
            Home::Remote(dir) => Some((dir, file.borrow().sidecar_name(column, metric))),
        });
        let wanted: Vec<_> = remote.collect();
        let patience = Patience::from(&*self.options());
        self.listings.list_ahead(&wanted, patience).await;
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

    /// Whether the sidecar can be used; compares the contents of a local file if its e-tag does not decide.
    async fn check(
        &self,
        sidecar: Arc<Sidecar>,
        location: &Location,
        column: &str,
        metric: VectorMetric,
        found: &SourceIdentity,
    ) -> Result<Arc<Sidecar>, Reason> {
        let other_tag = match sidecar.check(column, metric, found) {
            Ok(()) => return Ok(sidecar),
            Err(reason @ Reason::Stale(Stale::ETag)) => reason,
            Err(reason) => return Err(reason),
        };
        let (Some(path), Some(indexed)) = (&location.local, sidecar.meta().properties.get(CONTENT_HASH))
        else {
            return Err(other_tag);
        };
        match self.contents.of(path).await {
            Content::Hash(now) if now == *indexed => Ok(sidecar),
            Content::Hash(_) => Err(Reason::Stale(Stale::Content)),
            Content::Pending => Err(Reason::Checking),
            Content::Unreadable => Err(other_tag),
        }
    }

    /// Opens a sidecar by its place, whatever it is the index of.
    pub(super) async fn open(&self, home: &Home, name: &SidecarName) -> Result<Arc<Sidecar>, Reason> {
        match home {
            Home::Local(dir) => self.open_local(dir, name).await,
            Home::Remote(dir) => self.open_remote(dir, name).await,
        }
    }

    async fn open_local(&self, dir: &FsPath, name: &SidecarName) -> Result<Arc<Sidecar>, Reason> {
        let path = dir.join(name.to_string());
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) => {
                return Err(match io_reason(&error) {
                    Reason::NoSidecar => missing(name, |other| {
                        std::fs::metadata(dir.join(other.to_string())).is_ok()
                    }),
                    reason => reason,
                });
            }
        };
        let stamp = Some(Stamp::of(&meta));
        let key = path.to_string_lossy().into_owned();
        if let Some(known) = self.open.get(&key, stamp) {
            return known;
        }
        let opened = self.opening(&key, move || Sidecar::open(&path)).await;
        // What may be better next time is not remembered.
        if matches!(
            opened,
            Ok(_) | Err(Reason::Damaged { .. } | Reason::NewerFormat { .. })
        ) {
            self.open
                .put(&key, stamp, opened.clone(), self.options().max_open);
        }
        opened
    }

    async fn open_remote(&self, dir: &RemoteDir, name: &SidecarName) -> Result<Arc<Sidecar>, Reason> {
        let options = self.options();
        let patience = Patience::from(&*options);
        for _ in 0..3 {
            let objects = match self.listings.get(dir, name, patience).await {
                Ok(objects) => objects,
                Err(detail) => return Err(Reason::Unavailable { detail }),
            };
            let Some(object) = objects.get(&name.to_string()) else {
                return Err(missing(name, |other| objects.contains_key(&other.to_string())));
            };
            match self.open_object(dir, object, &options).await {
                // Told so for a listing that was remembered, or replaced a moment ago: look again.
                Err(FetchError::Changed) => self.listings.forget(dir, name),
                Err(FetchError::Failed(reason)) => return Err(reason),
                Ok(sidecar) => return Ok(sidecar),
            }
        }
        Err(Reason::Unavailable {
            detail: "it keeps changing".to_owned(),
        })
    }

    /// Opens this version of a remote sidecar: from the open ones, from the cache directory, or from its store.
    pub(super) async fn open_object(
        &self,
        dir: &RemoteDir,
        object: &ObjectMeta,
        options: &SidecarOptions,
    ) -> Result<Arc<Sidecar>, FetchError> {
        let described = self.listings.describe(dir, object, Patience::from(options)).await;
        let object = &match described {
            Ok(Some(object)) => object,
            Ok(None) => return Err(FetchError::Changed),
            Err(detail) => return Err(FetchError::Failed(Reason::Unavailable { detail })),
        };
        let key = copy_key(dir, object, &self.nonce);
        if let Some(known) = self.open.get(&key, None) {
            return known.map_err(FetchError::Failed);
        }
        if let Some(reason) = self.failed_lately(&key, options) {
            return Err(FetchError::Failed(reason));
        }
        let opened = self.fetch_and_map(&key, dir, object, options).await;
        match &opened {
            Ok(sidecar) => self
                .open
                .put(&key, None, Ok(Arc::clone(sidecar)), options.max_open),
            Err(FetchError::Failed(reason @ (Reason::Damaged { .. } | Reason::NewerFormat { .. }))) => {
                self.open.put(&key, None, Err(reason.clone()), options.max_open);
            }
            Err(FetchError::Failed(reason)) => {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                if failures.len() >= WARNINGS {
                    failures.clear();
                }
                failures.insert(key, (Instant::now(), reason.clone()));
            }
            Err(FetchError::Changed) => {}
        }
        opened
    }

    async fn fetch_and_map(
        &self,
        key: &str,
        dir: &RemoteDir,
        object: &ObjectMeta,
        options: &SidecarOptions,
    ) -> Result<Arc<Sidecar>, FetchError> {
        let cache = self.cache(options).await.map_err(FetchError::Failed)?;
        let url = dir.address(&object.location);
        let begun = Instant::now();
        let mut first = true;
        loop {
            let Copy { file, fetched } = fetch(&cache, key, dir, object, options).await?;
            if fetched > 0 {
                self.counts.fetched.fetch_add(1, Ordering::Relaxed);
                self.counts.bytes_fetched.fetch_add(fetched, Ordering::Relaxed);
                tracing::info!(%url, bytes = fetched, ms = begun.elapsed().as_millis(), "fetched a sidecar");
            }
            let from = if fetched > 0 {
                LoadedFrom::Fetched
            } else {
                LoadedFrom::Cache
            };
            let address = url.clone();
            match self
                .opening(&url, move || Sidecar::map(&file, &address, from))
                .await
            {
                Ok(sidecar) => return Ok(sidecar),
                // The copy may have suffered where the original did not.
                Err(_) if fetched == 0 && first => cache.remove(key),
                Err(reason) => return Err(FetchError::Failed(reason)),
            }
            first = false;
        }
    }

    /// Runs the work of opening a sidecar where it may block, and tells of it.
    async fn opening(
        &self,
        url: &str,
        open: impl FnOnce() -> Result<Sidecar, Reason> + Send + 'static,
    ) -> Result<Arc<Sidecar>, Reason> {
        let begun = Instant::now();
        let opened = blocking(move || Ok(open()))
            .await
            .unwrap_or_else(|error| {
                Err(Reason::Unavailable {
                    detail: error.to_string(),
                })
            })
            .map(Arc::new);
        if let Ok(sidecar) = &opened {
            self.counts.opened.fetch_add(1, Ordering::Relaxed);
            let us = begun.elapsed().as_micros();
            tracing::debug!(%url, bytes = sidecar.bytes(), us, from = ?sidecar.loaded_from(), "opened a sidecar");
        }
        opened
    }

    pub(super) async fn cache(&self, options: &SidecarOptions) -> Result<CacheDir, Reason> {
        let root = options.cache_dir.clone().unwrap_or_else(default_root);
        let limit = options.cache_size;
        let name = root.display().to_string();
        blocking(move || CacheDir::open(&root, limit))
            .await
            .map_err(|error| Reason::Cache {
                detail: format!("{name}: {error}"),
            })
    }

    /// The name of the local copy of this version of an object.
    pub(super) fn copy_key(&self, dir: &RemoteDir, object: &ObjectMeta) -> String {
        copy_key(dir, object, &self.nonce)
    }

    fn failed_lately(&self, key: &str, options: &SidecarOptions) -> Option<Reason> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, reason) = failures.get(key)?;
        (at.elapsed() < options.retry_after).then(|| reason.clone())
    }

    fn warn_once(&self, home: &Home, name: &SidecarName, reason: &Reason) {
        let url = home.address(name);
        if !reason.is_worth_a_warning() {
            tracing::trace!(%url, code = %reason.code(), "no sidecar to use");
            return;
        }
        let code = reason.code();
        let mut warned = self.warned();
        if warned.get(&url).is_some_and(|before| *before == code) {
            return;
        }
        if warned.len() >= WARNINGS {
            warned.clear();
        }
        tracing::warn!(%url, %code, "answering the file without its index: {reason}");
        warned.insert(url, code.into_owned());
    }

    fn warned(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing under this name: is there something under another metric's?
fn missing(name: &SidecarName, exists: impl Fn(&SidecarName) -> bool) -> Reason {
    let found: Vec<_> = name
        .other_metrics()
        .filter(exists)
        .map(|other| other.metric)
        .collect();
    if found.is_empty() {
        Reason::NoSidecar
    } else {
        Reason::MetricMismatch {
            wanted: name.metric,
            found,
        }
    }
}

/// What a reason for not reading means for writing.
pub(super) fn as_error(at: String, reason: Reason) -> StoreError {
    match reason {
        Reason::Denied { detail } | Reason::Cache { detail } => StoreError::Denied {
            at,
            source: detail.into(),
        },
        other => StoreError::Unavailable {
            at,
            source: other.to_string().into(),
        },
    }
}
