//! From a place to an open sidecar: one that is open already, one of the local file system, or one to be fetched.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use object_store::ObjectMeta;
use tracing::Instrument;

use crate::sidecar::local::sidecar_dir::{self, DirectoryError, Missing};
use crate::sidecar::open_cache::{LoadedFrom, Sidecar, io_reason};
use crate::sidecar::options::{Load, SidecarOptions};
use crate::sidecar::place::home::{Home, LocalDir, RemoteDir};
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::read::verify::{Allowance, Care};
use crate::sidecar::reason::Reason;
use crate::sidecar::remote::cache_dir::{CacheDir, default_root};
use crate::sidecar::remote::download::{Copy, FetchError, blocking, copy_key, fetch};
use crate::sidecar::remote::listing_cache::Patience;
use crate::sidecar::store::{REMEMBERED, SidecarStore};
use crate::stamp::Stamp;

impl SidecarStore {
    /// Opens a sidecar by its place, whatever it is the index of.
    pub(crate) async fn open(&self, home: &Home, name: &SidecarName) -> Result<Arc<Sidecar>, Reason> {
        match home {
            Home::Local(dir) => self.open_local(dir, name).await,
            Home::Remote(dir) => self.open_remote(dir, name).await,
        }
    }

    async fn open_local(&self, dir: &LocalDir, name: &SidecarName) -> Result<Arc<Sidecar>, Reason> {
        let path = dir.path().join(name.to_string());
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) => {
                return Err(match io_reason(&error) {
                    Reason::NoSidecar => missing(name, |other| {
                        std::fs::metadata(path.with_file_name(other.to_string())).is_ok()
                    }),
                    reason => reason,
                });
            }
        };
        let stamp = Some(Stamp::of(&meta));
        let key = path.to_string_lossy().into_owned();
        let load = self.options().load.clone();
        if let Some(known) = self.open.get(&key, stamp)
            && is_loaded_as(&load, &known)
        {
            return known;
        }
        let dir = dir.clone();
        let opened = self.opening(&key, move || {
            trust(&dir).and_then(|()| Sidecar::open(&path, &load))
        });
        let opened = opened.await;
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
    pub(crate) async fn open_object(
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
        if let Some(known) = self.open.get(&key, None)
            && is_loaded_as(&options.load, &known)
        {
            match &known {
                // The local copy suffered, not the sidecar: its store has it whole.
                Ok(sidecar) if sidecar.usable().is_err() => self.discard_copy(&key, options).await,
                _ => return known.map_err(FetchError::Failed),
            }
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
                if failures.len() >= REMEMBERED {
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
            let (address, place, load) = (url.clone(), cache.place(key), options.load.clone());
            let opened = self
                .opening(&url, move || {
                    Sidecar::of_file(&file, &place, &address, from, &load)
                })
                .await;
            let opened = match opened {
                Ok(sidecar) if from == LoadedFrom::Fetched => {
                    // All of it was checked while it was fetched.
                    sidecar.integrity().set_whole();
                    return Ok(sidecar);
                }
                Ok(sidecar) => self
                    .verified(&sidecar, Care::Quick(&Allowance::default()))
                    .await
                    .map(|()| sidecar),
                Err(reason) => Err(reason),
            };
            match opened {
                Ok(sidecar) => return Ok(sidecar),
                // The copy may have suffered where the original did not.
                Err(Reason::Damaged { .. } | Reason::NewerFormat { .. }) if fetched == 0 && first => {
                    cache.remove(key);
                }
                Err(reason) => return Err(FetchError::Failed(reason)),
            }
            first = false;
        }
    }

    /// Lets go of a local copy of a remote sidecar, so that it is fetched again.
    async fn discard_copy(&self, key: &str, options: &SidecarOptions) {
        self.open.forget(key);
        if let Ok(cache) = self.cache(options).await {
            cache.remove(key);
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
            .instrument(tracing::debug_span!("load", %url))
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

    pub(crate) async fn cache(&self, options: &SidecarOptions) -> Result<CacheDir, Reason> {
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
    pub(crate) fn copy_key(&self, dir: &RemoteDir, object: &ObjectMeta) -> String {
        copy_key(dir, object, &self.nonce)
    }

    fn failed_lately(&self, key: &str, options: &SidecarOptions) -> Option<Reason> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, reason) = failures.get(key)?;
        (at.elapsed() < options.retry_after).then(|| reason.clone())
    }
}

/// Whether what lies in the directory can be believed.
fn trust(dir: &LocalDir) -> Result<(), Reason> {
    match sidecar_dir::open(dir, Missing::Leave) {
        Ok(_) => Ok(()),
        Err(DirectoryError::Untrusted(detail)) => Err(Reason::Untrusted { detail }),
        Err(DirectoryError::Io(error)) => Err(io_reason(&error)),
    }
}

/// Whether a sidecar that is open was opened as it would be now.
fn is_loaded_as(load: &Load, known: &Result<Arc<Sidecar>, Reason>) -> bool {
    known
        .as_ref()
        .is_ok_and(|sidecar| sidecar.is_in_memory() == load.is_to_memory())
        || known.is_err()
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
