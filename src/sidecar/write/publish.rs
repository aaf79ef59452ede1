//! Publishing a sidecar: readers see the old one or the new one, never half of either.
//!
//! On a local file system the bytes go to an unfinished file in the same directory, which one rename puts in place.
//! In an object store one request does, or one multipart upload that becomes visible when it is completed.
//! A [`BuildLease`] is taken before the index is built, so that two sessions do not build the same one.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, PoisonError};

use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::upload::Upload;
use crate::format::{self, SidecarMeta};
use crate::hnsw::{HnswIndex, VectorMetric};
use crate::sidecar::ball::{BALL, Ball};
use crate::sidecar::error::StoreError;
use crate::sidecar::local::part_file::Claim;
use crate::sidecar::local::unfinished::{Missing, claim_local, write_and_rename};
use crate::sidecar::place::location::{Home, Location, RemoteDir};
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::remote::download::blocking;
use crate::sidecar::source_hash::{self, CONTENT_HASH};
use crate::sidecar::store::SidecarStore;
use crate::stamp::Stamp;

/// A sidecar that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its size.
    pub bytes: u64,
    /// Its address: a path of the local file system, or a URL.
    pub url: String,
}

/// The right to build one sidecar. Dropping it gives it up and leaves everything as it was.
pub struct BuildLease {
    store: Arc<SidecarStore>,
    name: SidecarName,
    url: String,
    target: Target,
    source: Option<Source>,
}

/// The local Parquet file, as it was when the lease was taken.
struct Source {
    path: PathBuf,
    stamp: Option<Stamp>,
}

impl Source {
    fn of(path: &FsPath) -> Self {
        let stamp = std::fs::metadata(path).ok().map(|meta| Stamp::of(&meta));
        Self {
            path: path.to_owned(),
            stamp,
        }
    }
}

enum Target {
    Local {
        claim: Claim,
        path: PathBuf,
    },
    Remote {
        dir: RemoteDir,
        path: Path,
        before: Option<ObjectMeta>,
        _turn: Turn,
    },
}

/// Keeps others of this process from building the same remote sidecar.
pub(crate) struct Turn {
    store: Arc<SidecarStore>,
    url: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.store
            .building
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.url);
    }
}

impl SidecarStore {
    /// Takes the right to build the sidecar of this column and metric.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] if another session is building it; others if nothing can be written there. So a build
    /// that could not be published fails here, before its work is done.
    pub async fn begin(
        self: &Arc<Self>,
        location: &Location,
        column: &str,
        metric: VectorMetric,
    ) -> Result<BuildLease, StoreError> {
        let name = location.sidecar_name(column, metric);
        let home = location.home();
        let url = home.address(&name);
        let target = match home {
            Home::Local(dir) => {
                let path = dir.join(name.to_string());
                self.sweep(&dir).await;
                let missing = if location.sidecar_dir.is_some() {
                    Missing::All
                } else {
                    Missing::Last
                };
                let claim = claim_local(dir, path.clone(), missing).await?;
                Target::Local { claim, path }
            }
            Home::Remote(dir) => {
                let turn = self.turn(&url)?;
                let path = dir.path(&name);
                let before = match dir.store.head(&path).await {
                    Ok(object) => Some(object),
                    Err(object_store::Error::NotFound { .. }) => None,
                    Err(error) => return Err(StoreError::object(&url, error)),
                };
                Target::Remote {
                    dir,
                    path,
                    before,
                    _turn: turn,
                }
            }
        };
        let source = location.local.as_deref().map(Source::of);
        Ok(BuildLease {
            store: Arc::clone(self),
            name,
            url,
            target,
            source,
        })
    }

    /// Publishes an index as the sidecar of its column and metric, in one go.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin) and [`BuildLease::publish`].
    pub async fn publish(
        self: &Arc<Self>,
        location: &Location,
        index: Arc<HnswIndex>,
        meta: SidecarMeta,
    ) -> Result<Published, StoreError> {
        self.begin(location, &meta.table_column, index.metric())
            .await?
            .publish(index, meta)
            .await
    }

    pub(crate) fn turn(self: &Arc<Self>, url: &str) -> Result<Turn, StoreError> {
        let mut building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        if !building.insert(url.to_owned()) {
            return Err(StoreError::Busy { at: url.to_owned() });
        }
        Ok(Turn {
            store: Arc::clone(self),
            url: url.to_owned(),
        })
    }
}

impl BuildLease {
    /// The address that the sidecar will have.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Publishes the index; from here on readers find it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Superseded`] if another session published one since [`SidecarStore::begin`],
    /// [`StoreError::SourceChanged`] if the local Parquet file changed since; others if it cannot be written. What
    /// was there before is then untouched.
    pub async fn publish(
        mut self,
        index: Arc<HnswIndex>,
        mut meta: SidecarMeta,
    ) -> Result<Published, StoreError> {
        if let Some(Source {
            path,
            stamp: Some(before),
        }) = self.source.take()
        {
            let changed = || StoreError::SourceChanged { at: self.url.clone() };
            let (stamp, hash) = blocking(move || source_hash::hash(&path))
                .await
                .map_err(|_| changed())?;
            if stamp != before {
                return Err(changed());
            }
            meta.properties.insert(CONTENT_HASH.to_owned(), hash);
        }
        let rounded = !["Float16", "Float32"].contains(&meta.item_type.as_str());
        let indexed = Arc::clone(&index);
        let ball = blocking(move || Ok(Ball::around(&indexed, rounded))).await;
        if let Ok(Some(ball)) = ball {
            meta.properties.insert(BALL.to_owned(), ball.to_text());
        }
        self.publish_with(move |out| format::write(&index, &meta, &mut &mut *out).map(|_| ()))
            .await
    }

    /// Publishes whatever `write` writes.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_with(
        self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<Published, StoreError> {
        let Self {
            store,
            name,
            url,
            target,
            source: _,
        } = self;
        let bytes = match target {
            Target::Local { claim, path } => {
                let done = blocking(move || write_and_rename(claim, &path, write)).await;
                done.map_err(|error| StoreError::io(&url, error))?
            }
            Target::Remote {
                dir,
                path,
                before,
                _turn,
            } => {
                let upload = Upload {
                    store: &store,
                    dir: &dir,
                    path: &path,
                    url: &url,
                };
                let object = upload.run(before, write).await?;
                let bytes = object.size;
                store.listings.note(&dir, &name, Some(object));
                bytes
            }
        };
        tracing::info!(%url, bytes, "published a sidecar");
        Ok(Published { bytes, url })
    }
}

impl fmt::Debug for BuildLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildLease")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
