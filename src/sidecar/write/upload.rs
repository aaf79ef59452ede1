//! Sending a sidecar to an object store: in one request, or in parts that become visible together.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, UpdateVersion};

use crate::sidecar::error::StoreError;
use crate::sidecar::local::part_file::{Claim, Claimed};
use crate::sidecar::local::unfinished::write_out;
use crate::sidecar::place::home::RemoteDir;
use crate::sidecar::remote::cache_dir::keep;
use crate::sidecar::remote::download::blocking;
use crate::sidecar::remote::requests::within;
use crate::sidecar::store::SidecarStore;
use crate::sidecar::write::parts::Parts;

/// Up to this size a sidecar is sent in one request, which the store can make conditional.
const ONE_REQUEST: u64 = 16 << 20;

/// The size of the parts of larger ones (S3 wants at least 5 MiB and at most 10,000 of them).
const PART: u64 = 8 << 20;

/// Parts under way at once.
const PARALLEL: usize = 4;

/// One sidecar on its way to an object store.
pub(crate) struct Upload<'a> {
    pub(crate) store: &'a Arc<SidecarStore>,
    pub(crate) dir: &'a RemoteDir,
    pub(crate) path: &'a Path,
    pub(crate) url: &'a str,
}

impl Upload<'_> {
    /// Writes the bytes to the cache directory, sends them from there, and keeps them as the local copy.
    pub(crate) async fn run(
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
            .map_err(|reason| StoreError::reason(self.url, reason))?;
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
        let key = self.store.copy_key(self.dir, &object);
        // Keeping the copy only saves a fetch.
        let _ = blocking(move || keep(claim, &key)).await;
        Ok(object)
    }

    async fn send_at_once(&self, claim: &Claim, before: Option<ObjectMeta>) -> Result<PutResult, StoreError> {
        let bytes = read_part(claim, 0, u64::MAX)
            .await
            .map_err(|error| StoreError::io(self.url, error))?;
        let payload = PutPayload::from(bytes);
        let replaces = before.is_some();
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
            // A store that is a directory says so too of a link that leads nowhere, or of a directory.
            Err(object_store::Error::AlreadyExists { .. }) if !replaces && self.is_missing().await => {
                return Err(StoreError::InTheWay {
                    at: self.url.to_owned(),
                    found: "something that cannot be read".to_owned(),
                });
            }
            sent => sent,
        }
        .map_err(|error| match replaces {
            true => self.gone_or(error),
            false => StoreError::object(self.url, error),
        })
    }

    /// The error of a request for an object that was there a moment ago.
    fn gone_or(&self, error: object_store::Error) -> StoreError {
        match error {
            object_store::Error::NotFound { .. } => StoreError::Superseded {
                at: self.url.to_owned(),
            },
            error => StoreError::object(self.url, error),
        }
    }

    async fn is_missing(&self) -> bool {
        let head = self.dir.store.head(self.path);
        let found = within(self.store.options().timeout, self.url, head).await;
        matches!(found, Ok(Err(object_store::Error::NotFound { .. })))
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
        let upload = self.dir.store.put_multipart(self.path).await;
        let mut parts = Parts::of(upload.map_err(|error| StoreError::object(self.url, error))?);
        let sent = self.send_all_parts(&mut parts, claim, bytes, before).await;
        match &sent {
            Ok(_) => parts.upload = None,
            Err(_) => parts.abort().await,
        }
        sent
    }

    async fn send_all_parts(
        &self,
        parts: &mut Parts,
        claim: &Claim,
        bytes: u64,
        before: Option<ObjectMeta>,
    ) -> Result<PutResult, StoreError> {
        let failed = |error| StoreError::object(self.url, error);
        let part = PART.max(bytes.div_ceil(9_000));
        let mut at = 0;
        while at < bytes {
            let chunk = read_part(claim, at, part).await;
            let chunk = chunk.map_err(|error| StoreError::io(self.url, error))?;
            at += chunk.len() as u64;
            parts.send(chunk.into());
            parts.wait_until_fewer_than(PARALLEL).await.map_err(failed)?;
            tracing::trace!(url = %self.url, sent = at, of = bytes, "publishing a sidecar");
        }
        parts.wait_until_fewer_than(1).await.map_err(failed)?;
        // A multipart upload cannot be made conditional, so look once more before it becomes visible.
        let now = self.dir.store.head(self.path).await.ok();
        if now.as_ref().map(|object| &object.e_tag) != before.as_ref().map(|object| &object.e_tag) {
            return Err(StoreError::Superseded {
                at: self.url.to_owned(),
            });
        }
        parts.complete().await.map_err(failed)
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
            .map_err(|error| self.gone_or(error))
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
