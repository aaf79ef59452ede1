//! Publishing a sidecar: readers see the old one or the new one, never half of either.
//!
//! On a local file system the bytes go to an unfinished file in the same directory, which one rename puts in place.
//! In an object store one request does, or one multipart upload that becomes visible when it is completed.
//! A [`BuildLease`] is taken before the index is built, so that two sessions do not build the same one.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::ball::{BALL, Ball};
use super::claim::{Claim, Claimed, UNFINISHED, remove_leftover, sync_dir};
use super::content::{self, CONTENT_HASH};
use super::error::StoreError;
use super::fetch::blocking;
use super::location::{Home, Location, RemoteDir};
use super::name::SidecarName;
use super::open::Stamp;
use super::store::SidecarStore;
use super::upload::Upload;
use crate::format::{self, SidecarMeta};
use crate::hnsw::{HnswIndex, VectorMetric};

/// How often a directory is searched for leftovers.
const SWEEP: Duration = Duration::from_secs(60);

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
struct Turn {
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

    /// Removes the sidecar of this column and metric; false if there was none.
    ///
    /// Queries that use it finish with it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] while it is being built; others if it cannot be removed.
    pub async fn remove(
        self: &Arc<Self>,
        location: &Location,
        column: &str,
        metric: VectorMetric,
    ) -> Result<bool, StoreError> {
        self.remove_named(location, &location.sidecar_name(column, metric))
            .await
    }

    /// Removes the sidecar of this name from where the file has its sidecars; false if there was none.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub async fn remove_named(
        self: &Arc<Self>,
        location: &Location,
        name: &SidecarName,
    ) -> Result<bool, StoreError> {
        let home = location.home();
        let url = home.address(name);
        let existed = match &home {
            Home::Local(dir) => {
                let path = dir.join(name.to_string());
                self.open.forget(&path.to_string_lossy());
                if !dir.exists() {
                    return Ok(false);
                }
                let claim = claim_local(dir.clone(), path.clone(), Missing::None).await?;
                let dir = dir.clone();
                let removed = blocking(move || {
                    let removed = match std::fs::remove_file(&path) {
                        Ok(()) => sync_dir(&path).map(|()| true),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                        Err(error) => Err(error),
                    };
                    drop(claim);
                    // Goes only if it is empty.
                    let _ = std::fs::remove_dir(&dir);
                    removed
                });
                removed.await.map_err(|error| StoreError::io(&url, error))?
            }
            Home::Remote(dir) => {
                let _turn = self.turn(&url)?;
                let path = dir.path(name);
                match dir.store.head(&path).await {
                    Err(object_store::Error::NotFound { .. }) => false,
                    Err(error) => return Err(StoreError::object(&url, error)),
                    Ok(_) => match dir.store.delete(&path).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                            self.listings.note(dir, name, None);
                            true
                        }
                        Err(error) => return Err(StoreError::object(&url, error)),
                    },
                }
            }
        };
        if existed {
            tracing::info!(%url, "removed a sidecar");
        }
        Ok(existed)
    }

    /// Removes what builders that died left in the directory, once in a while.
    async fn sweep(&self, dir: &FsPath) {
        {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            if swept.get(dir).is_some_and(|at| at.elapsed() < SWEEP) {
                return;
            }
            swept.retain(|_, at| at.elapsed() < SWEEP);
            swept.insert(dir.to_owned(), Instant::now());
        }
        let dir = dir.to_owned();
        let removed = blocking(move || {
            let unfinished = std::fs::read_dir(dir)?
                .flatten()
                .filter(|entry| entry.file_name().to_str().is_some_and(is_unfinished));
            Ok(unfinished.filter(|entry| remove_leftover(&entry.path())).count())
        });
        if let Ok(removed @ 1..) = removed.await {
            tracing::info!(removed, "removed unfinished sidecars of builders that died");
        }
    }

    fn turn(self: &Arc<Self>, url: &str) -> Result<Turn, StoreError> {
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
            let (stamp, hash) = blocking(move || content::hash(&path))
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
                let done = blocking(move || write_and_rename(claim, &path, write, &|_| Ok(()))).await;
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

/// Where a local publish can be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Claimed,
    Written,
    Done,
}

/// The name of the unfinished file for a local sidecar: hidden, and never taken for Parquet or for a sidecar.
pub(super) fn unfinished(path: &FsPath) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{UNFINISHED}"))
}

fn is_unfinished(name: &str) -> bool {
    let name = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(UNFINISHED)?.strip_suffix('.'));
    name.is_some_and(|name| SidecarName::parse(name).is_some())
}

/// How far the directory of a sidecar is made if it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The subdirectory beside a Parquet file: the directory of the file is there.
    Last,
    /// All the way under a directory that mirrors other places.
    All,
    /// Not at all.
    None,
}

async fn claim_local(dir: PathBuf, path: PathBuf, missing: Missing) -> Result<Claim, StoreError> {
    let at = path.display().to_string();
    let claimed = blocking(move || {
        for _ in 0..10 {
            match missing {
                Missing::Last => match std::fs::create_dir(&dir) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                },
                Missing::All => std::fs::create_dir_all(&dir)?,
                Missing::None => {}
            }
            match Claim::take(&unfinished(&path)) {
                // Somebody dropped the last sidecar, and the empty directory with it, just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound && missing != Missing::None => {}
                claimed => return claimed,
            }
        }
        Err(io::Error::from(io::ErrorKind::NotFound))
    });
    match claimed.await {
        Ok(Claimed::Ours(claim)) => Ok(claim),
        Ok(Claimed::Busy) => Err(StoreError::Busy { at }),
        Err(error) => Err(StoreError::io(at, error)),
    }
}

fn write_and_rename(
    claim: Claim,
    path: &FsPath,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    step: &dyn Fn(Step) -> io::Result<()>,
) -> io::Result<u64> {
    step(Step::Claimed)?;
    let bytes = write_out(&claim, write)?;
    step(Step::Written)?;
    claim.put_in_place(path)?;
    step(Step::Done)?;
    Ok(bytes)
}

pub(super) fn write_out(
    claim: &Claim,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, claim.file());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    Ok(claim.file().metadata()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(path: &FsPath) -> Claim {
        match Claim::take(&unfinished(path)).expect("a directory we may write") {
            Claimed::Ours(claim) => claim,
            Claimed::Busy => panic!("nobody else is there"),
        }
    }

    #[test]
    fn a_publish_interrupted_at_any_step_leaves_the_old_file_or_the_new_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.parquet.v.l2.hnsw");
        for (stop, expected) in [
            (Step::Claimed, "old"),
            (Step::Written, "old"),
            (Step::Done, "new"),
        ] {
            std::fs::write(&path, "old").expect("room");
            let step = |at| {
                if at == stop {
                    Err(io::Error::other("interrupted"))
                } else {
                    Ok(())
                }
            };
            let done = write_and_rename(claim(&path), &path, |out| out.write_all(b"new"), &step);
            assert!(done.is_err());
            assert_eq!(std::fs::read_to_string(&path).expect("there"), expected);
            assert!(!unfinished(&path).exists());
        }
    }

    #[test]
    fn a_writer_that_fails_leaves_the_old_file_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.parquet.v.l2.hnsw");
        std::fs::write(&path, "old").expect("room");
        let fails = |out: &mut dyn Write| {
            out.write_all(&[0; 3 << 20])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let done = write_and_rename(claim(&path), &path, fails, &|_| Ok(()));
        assert_eq!(
            done.map_err(|error| error.kind()),
            Err(io::ErrorKind::StorageFull)
        );
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "old");
        assert!(!unfinished(&path).exists());
    }

    #[test]
    fn what_a_killed_writer_left_does_not_hinder_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.parquet.v.l2.hnsw");
        let dead = claim(&path);
        dead.file().set_len(1 << 20).expect("room");
        dead.abandon();
        assert!(unfinished(&path).exists());
        let done = write_and_rename(claim(&path), &path, |out| out.write_all(b"new"), &|_| Ok(()));
        assert_eq!(done.expect("published"), 3);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "new");
        assert!(!unfinished(&path).exists());
    }
}
