//! Looking a sidecar up: the one for exactly the bytes at hand, or why there is none.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use futures::{StreamExt, stream};

use crate::format::SourceIdentity;
use crate::hnsw::VectorMetric;
use crate::sidecar::open_cache::Sidecar;
use crate::sidecar::place::home::Home;
use crate::sidecar::place::location::Location;
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::read::verify::{Allowance, Care};
use crate::sidecar::reason::{Reason, Stale};
use crate::sidecar::remote::listing_cache::Patience;
use crate::sidecar::source_hash::{CONTENT_HASH, Content, KNOWN_HASHES, WAIT};
use crate::sidecar::store::{REMEMBERED, SidecarStore};

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
    /// The sidecar of this column and metric, if there is one for exactly the bytes that `found` tells of.
    ///
    /// Costs one `stat` for a sidecar that is open already. The first lookup of a file in a process checks its bytes,
    /// those of a large one in part; see [`SidecarOptions::verify_wait`](crate::sidecar::SidecarOptions::verify_wait). Never
    /// fails: whatever goes wrong is a reason to answer the file exactly. Warns once for each sidecar that cannot be
    /// used.
    pub async fn lookup(
        &self,
        location: &Location,
        column: &str,
        metric: VectorMetric,
        found: &SourceIdentity,
    ) -> Lookup {
        let care = Care::Quick(&Allowance::default());
        self.lookup_with(location, column, metric, found, 0, care).await
    }

    /// [`lookup`](Self::lookup) for those who want to know of any damage: all bytes of a fresh sidecar are checked,
    /// once for each file in a process.
    pub async fn lookup_whole(
        &self,
        location: &Location,
        column: &str,
        metric: VectorMetric,
        found: &SourceIdentity,
    ) -> Lookup {
        self.lookup_with(location, column, metric, found, WAIT, Care::Whole)
            .await
    }

    /// [`lookup`](Self::lookup) for one of the files of a query, which together wait for so many bytes at most.
    ///
    /// The caller otherwise reads `instead` bytes of the Parquet file: a comparison with what was indexed is waited for
    /// if it takes less than that.
    pub(crate) async fn lookup_with(
        &self,
        location: &Location,
        column: &str,
        metric: VectorMetric,
        found: &SourceIdentity,
        instead: u64,
        care: Care<'_>,
    ) -> Lookup {
        self.counts.lookups.fetch_add(1, Ordering::Relaxed);
        let name = location.sidecar_name(column, metric);
        let mut unusable: Option<(Home, Reason)> = None;
        for home in location.homes() {
            let wanted = (column, metric, found);
            let mut looked = self.look(&home, &name, location, wanted, instead, care).await;
            if let (Err(Reason::Damaged { .. }), Home::Remote(_)) = (&looked, &home) {
                // Perhaps only the local copy suffered: it was let go of, and another is fetched.
                looked = self.look(&home, &name, location, wanted, instead, care).await;
            }
            match looked {
                Ok(sidecar) => {
                    self.warned().remove(sidecar.url());
                    return Lookup::Fresh(sidecar);
                }
                Err(reason) => {
                    // What is said of a sidecar says more than that another place has none.
                    if unusable
                        .as_ref()
                        .is_none_or(|(_, known)| rank(known) < rank(&reason))
                    {
                        unusable = Some((home, reason));
                    }
                }
            }
        }
        let Some((home, reason)) = unusable else {
            return Lookup::Unusable(Reason::NoSidecar);
        };
        self.warn_once(&home, &name, &reason);
        Lookup::Unusable(reason)
    }

    async fn look(
        &self,
        home: &Home,
        name: &SidecarName,
        location: &Location,
        (column, metric, found): (&str, VectorMetric, &SourceIdentity),
        instead: u64,
        care: Care<'_>,
    ) -> Result<Arc<Sidecar>, Reason> {
        let sidecar = self.open(home, name).await?;
        let sidecar = self
            .check(sidecar, location, column, metric, found, instead)
            .await?;
        self.verified(&sidecar, care).await?;
        Ok(sidecar)
    }

    /// Looks up many files at once, as [`lookup_whole`](Self::lookup_whole) does; the answers come in the order of the
    /// files.
    pub async fn lookup_all(
        &self,
        files: &[(Location, SourceIdentity)],
        column: &str,
        metric: VectorMetric,
    ) -> Vec<Lookup> {
        self.lookup_each(files, column, metric, WAIT).await
    }

    /// As [`lookup_all`](Self::lookup_all), for a caller who otherwise builds the indexes: a comparison with what was
    /// indexed is always waited for.
    #[cfg(feature = "datafusion")]
    pub(crate) async fn lookup_all_or_build(
        &self,
        files: &[(Location, SourceIdentity)],
        column: &str,
        metric: VectorMetric,
    ) -> Vec<Lookup> {
        self.lookup_each(files, column, metric, u64::MAX).await
    }

    async fn lookup_each(
        &self,
        files: &[(Location, SourceIdentity)],
        column: &str,
        metric: VectorMetric,
        instead: u64,
    ) -> Vec<Lookup> {
        self.list_ahead(files.iter().map(|(location, _)| location), column, metric)
            .await;
        let parallel = self.options().lookup_parallel.max(1);
        let lookups = files
            .iter()
            .map(|(location, found)| self.lookup_with(location, column, metric, found, instead, Care::Whole));
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
        let remote = files.into_iter().map_while(|file| {
            let dirs = file.borrow().homes().into_iter().map(|home| match home {
                Home::Local(_) => None,
                Home::Remote(dir) => Some(dir),
            });
            Some((
                dirs.collect::<Option<Vec<_>>>()?,
                file.borrow().sidecar_name(column, metric),
            ))
        });
        let places: Vec<_> = remote.collect();
        let patience = Patience::from(&*self.options());
        // The first place of each file, and then the next one of those that have no sidecar there.
        for level in 0.. {
            let wanted: Vec<_> = places
                .iter()
                .filter(|(dirs, name)| {
                    !dirs
                        .iter()
                        .take(level)
                        .any(|dir| self.listings.shows(dir, name, patience))
                })
                .filter_map(|(dirs, name)| Some((dirs.get(level)?.clone(), name.clone())))
                .collect();
            if wanted.is_empty() {
                return;
            }
            self.listings.list_ahead(&wanted, patience).await;
        }
    }

    /// Whether the sidecar can be used; compares the contents of a local file if its tag does not decide.
    async fn check(
        &self,
        sidecar: Arc<Sidecar>,
        location: &Location,
        column: &str,
        metric: VectorMetric,
        found: &SourceIdentity,
        instead: u64,
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
        let content = match self.contents.remembered(path) {
            Some(hash) => Content::Hash(hash),
            None => {
                let cache = self.cache(&self.options()).await;
                let kept = cache.ok().map(|cache| cache.private_file(KNOWN_HASHES));
                self.contents.find_out(path, kept, instead).await
            }
        };
        match content {
            Content::Hash(now) if now == *indexed => Ok(sidecar),
            Content::Hash(_) => Err(Reason::Stale(Stale::Content)),
            Content::Pending => Err(Reason::Checking),
            Content::Unreadable => Err(other_tag),
        }
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
        if warned.len() >= REMEMBERED {
            warned.clear();
        }
        tracing::warn!(%url, %code, "answering the file without its index: {reason}");
        warned.insert(url, code.into_owned());
    }

    fn warned(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much a reason says of the sidecar that was asked for.
fn rank(reason: &Reason) -> u8 {
    match reason {
        Reason::NoSidecar => 0,
        Reason::MetricMismatch { .. } => 1,
        _ => 2,
    }
}
