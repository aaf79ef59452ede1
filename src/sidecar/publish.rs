//! Publishing a sidecar: readers see the old one or the new one, never half of either.
//!
//! On a local file system the bytes go to an unfinished file in the same directory, which one rename puts in place.
//! In an object store one request does, or one multipart upload that becomes visible when it is completed.
//! A [`BuildLease`] is taken before the index is built, so that two sessions do not build the same one.

use std::fmt;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use object_store::path::Path;
use object_store::{
    ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, UpdateVersion, WriteMultipart,
};

use super::claim::{Claim, Claimed, UNFINISHED, sync_dir};
use super::error::StoreError;
use super::fetch::blocking;
use super::location::{Home, Location, RemoteDir};
use super::name::SidecarName;
use super::store::{SidecarStore, as_error};
use crate::format::{self, SidecarMeta};
use crate::hnsw::{HnswIndex, VectorMetric};

/// Up to this size a sidecar is sent in one request, which the store can make conditional.
const ONE_REQUEST: u64 = 16 << 20;

/// The size of the parts of larger ones (S3 wants at least 5 MiB and at most 10,000 of them).
const PART: u64 = 8 << 20;

/// Parts under way at once.
const PARALLEL: usize = 4;

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
                let create = location.sidecar_dir.is_some();
                let claim = claim_local(dir, path.clone(), create).await?;
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
        Ok(BuildLease {
            store: Arc::clone(self),
            name,
            url,
            target,
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
        let name = location.sidecar_name(column, metric);
        let home = location.home();
        let url = home.address(&name);
        let existed = match &home {
            Home::Local(dir) => {
                let path = dir.join(name.to_string());
                self.open.forget(&path.to_string_lossy());
                if !dir.exists() {
                    return Ok(false);
                }
                let claim = claim_local(dir.clone(), path.clone(), false).await?;
                let removed = blocking(move || {
                    let removed = match std::fs::remove_file(&path) {
                        Ok(()) => sync_dir(&path).map(|()| true),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                        Err(error) => Err(error),
                    };
                    drop(claim);
                    removed
                });
                removed.await.map_err(|error| StoreError::io(&url, error))?
            }
            Home::Remote(dir) => {
                let _turn = self.turn(&url)?;
                let path = dir.path(&name);
                match dir.store.head(&path).await {
                    Err(object_store::Error::NotFound { .. }) => false,
                    Err(error) => return Err(StoreError::object(&url, error)),
                    Ok(_) => match dir.store.delete(&path).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                            self.listings.note(dir, &name, None);
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
    /// [`StoreError::Superseded`] if another session published one since [`SidecarStore::begin`]; others if it
    /// cannot be written. What was there before is then untouched.
    pub async fn publish(self, index: Arc<HnswIndex>, meta: SidecarMeta) -> Result<Published, StoreError> {
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

async fn claim_local(dir: PathBuf, path: PathBuf, create: bool) -> Result<Claim, StoreError> {
    let at = path.display().to_string();
    let claimed = blocking(move || {
        if create {
            std::fs::create_dir_all(&dir)?;
        }
        Claim::take(&unfinished(&path))
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

fn write_out(claim: &Claim, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, claim.file());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    Ok(claim.file().metadata()?.len())
}

/// One sidecar on its way to an object store.
struct Upload<'a> {
    store: &'a Arc<SidecarStore>,
    dir: &'a RemoteDir,
    path: &'a Path,
    url: &'a str,
}

impl Upload<'_> {
    /// Writes the bytes to the cache directory, sends them from there, and keeps them as the local copy.
    async fn run(
        &self,
        before: Option<ObjectMeta>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<ObjectMeta, StoreError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let options = self.store.options();
        let cache = self
            .store
            .cache(&options)
            .await
            .map_err(|reason| as_error(self.url.to_owned(), reason))?;
        let key = format!(
            "upload-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let spooled = {
            let cache = cache.clone();
            blocking(move || match cache.begin(&key, 0)? {
                Claimed::Ours(claim) => {
                    let bytes = write_out(&claim, write)?;
                    cache.make_room(bytes);
                    Ok((claim, bytes))
                }
                Claimed::Busy => Err(io::Error::other("its unfinished file is held by another process")),
            })
        };
        let (claim, bytes) = spooled.await.map_err(|error| StoreError::io(self.url, error))?;
        let sent = if bytes <= ONE_REQUEST {
            self.send_at_once(&claim, before).await?
        } else {
            self.send_in_parts(&claim, bytes, before).await?
        };
        let object = self.published(bytes, sent).await?;
        let place = cache.place(&self.store.copy_key(self.dir, &object));
        // Keeping the copy only saves a fetch.
        let _ = blocking(move || claim.put_in_place(&place)).await;
        Ok(object)
    }

    async fn send_at_once(&self, claim: &Claim, before: Option<ObjectMeta>) -> Result<PutResult, StoreError> {
        let bytes = read_part(claim, 0, u64::MAX)
            .await
            .map_err(|error| StoreError::io(self.url, error))?;
        let payload = PutPayload::from(bytes);
        let mode = match before {
            None => PutMode::Create,
            Some(ObjectMeta {
                e_tag: None,
                version: None,
                ..
            }) => PutMode::Overwrite,
            Some(ObjectMeta { e_tag, version, .. }) => PutMode::Update(UpdateVersion { e_tag, version }),
        };
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let sent = self.dir.store.put_opts(self.path, payload.clone(), options).await;
        match sent {
            // Stores without conditional requests: the last builder wins.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.dir.store.put(self.path, payload).await
            }
            // A request whose answer was lost is sent again and then meets its own work; and as builds are
            // deterministic, another session may have published the very same bytes.
            Err(object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. })
                if self.holds(&payload).await =>
            {
                Ok(PutResult {
                    e_tag: None,
                    version: None,
                })
            }
            sent => sent,
        }
        .map_err(|error| StoreError::object(self.url, error))
    }

    async fn holds(&self, payload: &PutPayload) -> bool {
        let Ok(answer) = self.dir.store.get(self.path).await else {
            return false;
        };
        answer.meta.size == payload.content_length() as u64
            && answer
                .bytes()
                .await
                .is_ok_and(|there| there.iter().eq(payload.iter().flatten()))
    }

    /// Uploads in parts; nothing is visible before the last step, and nothing is left behind by a failure.
    async fn send_in_parts(
        &self,
        claim: &Claim,
        bytes: u64,
        before: Option<ObjectMeta>,
    ) -> Result<PutResult, StoreError> {
        let failed = |error| StoreError::object(self.url, error);
        let upload = self.dir.store.put_multipart(self.path).await.map_err(failed)?;
        let part = PART.max(bytes.div_ceil(9_000));
        let mut writer =
            WriteMultipart::new_with_chunk_size(upload, usize::try_from(part).unwrap_or(usize::MAX));
        let mut at = 0;
        while at < bytes {
            let sent = match read_part(claim, at, part).await {
                Ok(chunk) => {
                    at += chunk.len() as u64;
                    writer.put(chunk.into());
                    writer.wait_for_capacity(PARALLEL).await.map_err(failed)
                }
                Err(error) => Err(StoreError::io(self.url, error)),
            };
            if let Err(error) = sent {
                let _ = writer.abort().await;
                return Err(error);
            }
            tracing::trace!(url = %self.url, sent = at, of = bytes, "publishing a sidecar");
        }
        // A multipart upload cannot be made conditional, so look once more before it becomes visible.
        let now = self.dir.store.head(self.path).await.ok();
        if now.as_ref().map(|object| &object.e_tag) != before.as_ref().map(|object| &object.e_tag) {
            let _ = writer.abort().await;
            return Err(StoreError::Superseded {
                at: self.url.to_owned(),
            });
        }
        writer.finish().await.map_err(failed)
    }

    /// The object as a listing will show it.
    async fn published(&self, bytes: u64, sent: PutResult) -> Result<ObjectMeta, StoreError> {
        if sent.e_tag.is_some() {
            return Ok(ObjectMeta {
                location: self.path.clone(),
                last_modified: std::time::SystemTime::now().into(),
                size: bytes,
                e_tag: sent.e_tag,
                version: sent.version,
            });
        }
        self.dir
            .store
            .head(self.path)
            .await
            .map_err(|error| StoreError::object(self.url, error))
    }
}

async fn read_part(claim: &Claim, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut file = claim.file().try_clone()?;
    blocking(move || {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.take(len).read_to_end(&mut bytes)?;
        Ok(bytes)
    })
    .await
}
