//! Which sidecars a directory of an object store holds: one LIST per directory, or one for a whole tree of them,
//! remembered for a while.
//!
//! A remembered listing may lag behind the store. What it still shows is safe to use, because every sidecar is
//! checked against the Parquet file at hand: so it is used, and renewed in the background. What it does not show
//! may exist by now: so that is believed only for [`listing_ttl`](crate::sidecar::SidecarOptions::listing_ttl).

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use object_store::{ObjectMeta, ObjectStoreExt};
use quick_cache::sync::Cache;

use super::requests::{Objects, ask, cannot_list, common_root, head, list, list_tree};
use crate::sidecar::options::SidecarOptions;
use crate::sidecar::place::home::RemoteDir;
use crate::sidecar::place::name::SidecarName;

/// About how many directories are remembered; the least useful go first.
const DIRECTORIES: usize = 16_384;

/// For how many times the usual time a listing is used as it is for what it shows.
const SHOWN: u32 = 6;

/// And for how many more it is used while it is renewed behind the scenes.
const GRACE: u32 = 60;

/// An object not changed for this long will show its next change in its time.
const SETTLED: Duration = Duration::from_secs(3);

/// From how many directories on one recursive listing is tried.
const MANY: usize = 8;

/// Objects in an answer to LIST.
const PAGE: usize = 1000;

/// The remembered listings.
#[derive(Debug)]
pub(crate) struct Listings {
    cells: Cache<String, Arc<Cell>>,
    /// Objects of stores whose listings show no e-tags, as those stores describe them when asked for one.
    described: Cache<String, ObjectMeta>,
    /// Held by the one who lists a whole tree.
    ahead: tokio::sync::Mutex<()>,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            cells: Cache::new(DIRECTORIES),
            described: Cache::new(DIRECTORIES),
            ahead: tokio::sync::Mutex::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Cell {
    known: Mutex<Known>,
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    objects: Option<Arc<Objects>>,
    at: Option<Instant>,
    /// Why the store did not answer, and since when we have not asked again.
    failed: Option<(Instant, String)>,
    /// Counts our own changes, so that a listing begun before one does not undo it.
    changes: u64,
}

/// How long listings are believed, and how long an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) ttl: Duration,
    pub(crate) retry_after: Duration,
    pub(crate) timeout: Duration,
}

impl From<&SidecarOptions> for Patience {
    fn from(options: &SidecarOptions) -> Self {
        Self {
            ttl: options.listing_ttl,
            retry_after: options.retry_after,
            timeout: options.timeout,
        }
    }
}

impl Listings {
    /// The sidecars of the directory; believed missing only if the listing is fresh.
    pub(crate) async fn get(
        &self,
        dir: &RemoteDir,
        name: &SidecarName,
        patience: Patience,
    ) -> Result<Arc<Objects>, String> {
        let cell = self.cell(dir, name);
        if let Some(objects) = cell.fresh(patience.ttl) {
            return Ok(objects);
        }
        let shows = |objects: &Arc<Objects>| objects.contains_key(&name.to_string());
        if let Some(objects) = cell.fresh(patience.ttl * SHOWN).filter(shows) {
            return Ok(objects);
        }
        if let Some(objects) = cell.fresh(patience.ttl * GRACE).filter(shows) {
            let (dir, name) = (dir.clone(), name.clone());
            tokio::spawn(async move { cell.renew(&dir, &name, patience).await });
            return Ok(objects);
        }
        cell.renew(dir, name, patience).await
    }

    /// Whether the directory is known to hold the sidecar.
    pub(crate) fn shows(&self, dir: &RemoteDir, name: &SidecarName, patience: Patience) -> bool {
        let known = self.cell(dir, name).fresh(patience.ttl * GRACE);
        known.is_some_and(|objects| objects.contains_key(&name.to_string()))
    }

    /// Lists the directories in which these sidecars will be looked up, all at once if there are many: a table with a
    /// directory for each partition costs a few requests instead of one for each.
    ///
    /// Whatever goes wrong is left to the lookups.
    pub(crate) async fn list_ahead(&self, wanted: &[(RemoteDir, SidecarName)], patience: Patience) {
        if self.unknown(wanted, patience).len() < MANY {
            return;
        }
        let _turn = self.ahead.lock().await;
        let unknown = self.unknown(wanted, patience);
        let [(first, _), ..] = unknown.as_slice() else {
            return;
        };
        if unknown.len() < MANY {
            return; // the one before us asked
        }
        let before: Vec<_> = unknown
            .iter()
            .map(|(dir, name)| {
                let cell = self.cell(dir, name);
                let changes = cell.lock().changes;
                (cell, changes)
            })
            .collect();
        let root = common_root(unknown.iter().map(|(dir, _)| &dir.dir));
        // A quarter of the requests that it saves: the tree may hold much that is not ours.
        let most = unknown.len() / 4 * PAGE;
        let begun = Instant::now();
        let listed = tokio::time::timeout(patience.timeout, list_tree(first, &root, most)).await;
        let Ok(Ok(Some(mut found))) = listed else { return };
        for ((dir, _), (cell, changes)) in unknown.iter().zip(before) {
            let mut known = cell.lock();
            if known.changes == changes {
                known.objects = Some(Arc::new(found.remove(&dir.dir).unwrap_or_default()));
                known.at = Some(begun);
                known.failed = None;
            }
        }
    }

    /// Those whose directory would have to be listed, one for each directory.
    fn unknown<'a>(
        &self,
        wanted: &'a [(RemoteDir, SidecarName)],
        patience: Patience,
    ) -> Vec<&'a (RemoteDir, SidecarName)> {
        let mut seen = HashSet::new();
        wanted
            .iter()
            .filter(|(dir, name)| {
                let cell = self.cell(dir, name);
                let is_known = cell.fresh(patience.ttl).is_some()
                    || cell
                        .fresh(patience.ttl * GRACE)
                        .is_some_and(|objects| objects.contains_key(&name.to_string()));
                !is_known && !cannot_list(dir) && seen.insert(&dir.dir)
            })
            .collect()
    }

    /// The sidecars of the directory as they are now.
    pub(crate) async fn get_now(&self, dir: &RemoteDir, patience: Patience) -> Result<Arc<Objects>, String> {
        let found = ask(patience.timeout, || list(dir)).await?;
        Ok(Arc::new(found))
    }

    /// The object with its e-tag, which some stores tell only of single objects.
    pub(crate) async fn describe(
        &self,
        dir: &RemoteDir,
        object: &ObjectMeta,
        patience: Patience,
    ) -> Result<Option<ObjectMeta>, String> {
        if object.e_tag.is_some() || object.version.is_some() {
            return Ok(Some(object.clone()));
        }
        let key = dir.address(&object.location);
        if let Some(known) = self.described.get(&key)
            && (known.size, known.last_modified) == (object.size, object.last_modified)
        {
            return Ok(Some(known));
        }
        let asked = SystemTime::now();
        let found = ask(patience.timeout, || async {
            let object = dir.store.head(&object.location).await?;
            Ok(Objects::from([(String::new(), object)]))
        });
        let Some(found) = found.await?.remove("") else {
            return Ok(None);
        };
        // Times have whole seconds: an object this young may change again without showing it.
        let settled = asked
            .checked_sub(SETTLED)
            .is_some_and(|then| SystemTime::from(found.last_modified) < then);
        if settled {
            self.described.insert(key, found.clone());
        }
        Ok(Some(found))
    }

    /// Notes a change that we made ourselves.
    pub(crate) fn note(&self, dir: &RemoteDir, name: &SidecarName, object: Option<ObjectMeta>) {
        let cell = self.cell(dir, name);
        let mut known = cell.lock();
        known.changes += 1;
        known.failed = None;
        let Some(objects) = &mut known.objects else { return };
        let objects = Arc::make_mut(objects);
        match object {
            Some(object) => objects.insert(name.to_string(), object),
            None => objects.remove(&name.to_string()),
        };
    }

    /// Forgets what is known of the directory.
    pub(crate) fn forget(&self, dir: &RemoteDir, name: &SidecarName) {
        let cell = self.cell(dir, name);
        let mut known = cell.lock();
        known.changes += 1;
        known.at = None;
        known.objects = None;
    }

    fn cell(&self, dir: &RemoteDir, name: &SidecarName) -> Arc<Cell> {
        // A plain web server cannot list, so there each name is a directory of its own.
        let key = if cannot_list(dir) {
            dir.address(&dir.path(name))
        } else {
            dir.address(&dir.dir)
        };
        let new = || Ok::<_, Infallible>(Arc::default());
        match self.cells.get_or_insert_with(&key, new) {
            Ok(cell) => cell,
        }
    }
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, age: Duration) -> Option<Arc<Objects>> {
        let known = self.lock();
        if known.at.is_some_and(|at| at.elapsed() < age) {
            known.objects.clone()
        } else {
            None
        }
    }

    /// Asks the store, once for all who want to know.
    async fn renew(
        &self,
        dir: &RemoteDir,
        name: &SidecarName,
        patience: Patience,
    ) -> Result<Arc<Objects>, String> {
        let _turn = self.renewing.lock().await;
        if let Some(objects) = self.fresh(patience.ttl) {
            return Ok(objects); // the one before us asked
        }
        if let Some((since, why)) = &self.lock().failed
            && since.elapsed() < patience.retry_after
        {
            return Err(why.clone());
        }
        loop {
            let changes = self.lock().changes;
            let begun = Instant::now();
            let answer = if cannot_list(dir) {
                ask(patience.timeout, || head(dir, name)).await
            } else {
                ask(patience.timeout, || list(dir)).await
            };
            let mut known = self.lock();
            match answer {
                Ok(_) if known.changes != changes => {}
                Ok(objects) => {
                    let objects = Arc::new(objects);
                    known.objects = Some(Arc::clone(&objects));
                    known.at = Some(begun);
                    known.failed = None;
                    return Ok(objects);
                }
                Err(why) => {
                    known.failed = Some((Instant::now(), why.clone()));
                    return Err(why);
                }
            }
        }
    }
}
