//! Fetching a remote sidecar into the cache directory, once for everybody.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use tracing::Instrument;
use xxhash_rust::xxh3::xxh3_128;

use super::cache_dir::{CacheDir, keep};
use super::requests::version_of;
use crate::loader::MmapLoader;
use crate::sidecar::local::part_file::{Claim, Claimed};
use crate::sidecar::open_cache::load_reason;
use crate::sidecar::options::SidecarOptions;
use crate::sidecar::place::home::RemoteDir;
use crate::sidecar::reason::Reason;
use crate::sidecar::redact::redact;

/// How often a part is asked for before the fetch is given up.
const ATTEMPTS: u32 = 4;

/// How often we look whether another process has finished the copy we want too.
const POLL: Duration = Duration::from_millis(20);

/// Why a fetch brought nothing.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The object is not the one that was listed any more: list again.
    Changed,
    /// To be told to the user.
    Failed(Reason),
}

/// A copy in the cache directory.
#[derive(Debug)]
pub(crate) struct Copy {
    /// Open for reading: its name may be gone again, if another process needed room.
    pub(crate) file: File,
    /// Bytes that had to be fetched for it: all or none.
    pub(crate) fetched: u64,
}

/// The name of the local copy of this version of this object.
///
/// `nonce` sets apart stores that exist only inside this process, whose names and versions mean nothing elsewhere.
pub(crate) fn copy_key(dir: &RemoteDir, object: &ObjectMeta, nonce: &str) -> String {
    let scheme = dir.store_url.split(':').next().unwrap_or_default();
    let global = [
        "s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss", "http", "https", "hdfs", "oss",
        "cos",
    ];
    let nonce = if global.contains(&scheme) { "" } else { nonce };
    let identity = format!(
        "{}\0{}\0{}\0{nonce}",
        dir.address(&object.location),
        object.size,
        version_of(object)
    );
    format!("{:032x}", xxh3_128(identity.as_bytes()))
}

/// Brings the object into the cache directory, unless it is there.
pub(crate) async fn fetch(
    cache: &CacheDir,
    key: &str,
    dir: &RemoteDir,
    object: &ObjectMeta,
    options: &SidecarOptions,
) -> Result<Copy, FetchError> {
    if object.size > options.cache_size {
        let detail = format!(
            "it has {} bytes and hnsw.cache_size is {}",
            object.size, options.cache_size
        );
        return Err(FetchError::Failed(Reason::Cache { detail }));
    }
    let patience = Instant::now() + options.timeout;
    let claim = loop {
        if let Some(file) = find(cache, key, object.size).await {
            return Ok(Copy { file, fetched: 0 });
        }
        let (cache, key, size) = (cache.clone(), key.to_owned(), object.size);
        match blocking(move || cache.begin(&key, size))
            .await
            .map_err(cache_failed)?
        {
            Claimed::Ours(claim) => break claim,
            Claimed::Busy if Instant::now() < patience => tokio::time::sleep(POLL).await,
            Claimed::Busy => {
                let detail = "another process is still fetching it".to_owned();
                return Err(FetchError::Failed(Reason::Unavailable { detail }));
            }
        }
    };
    // Whoever held the claim before us may have finished the copy just then.
    if let Some(file) = find(cache, key, object.size).await {
        return Ok(Copy { file, fetched: 0 });
    }
    let claim = Arc::new(claim);
    let span = tracing::info_span!("fetch", url = %dir.address(&object.location), bytes = object.size);
    download(dir.store.as_ref(), object, &claim, options)
        .instrument(span)
        .await?;
    let key = key.to_owned();
    let finished = blocking(move || {
        // The writers of all parts are done, so this is the last handle.
        let claim = Arc::into_inner(claim).ok_or_else(|| io::Error::other("still being written"))?;
        // The bytes that came are checked here. What becomes of them later is checked as with a local sidecar.
        if let Err(reason) = verify(claim.file()) {
            return Ok(Err(reason));
        }
        keep(claim, &key).map(Ok)
    });
    let file = finished
        .await
        .map_err(cache_failed)?
        .map_err(FetchError::Failed)?;
    Ok(Copy {
        file,
        fetched: object.size,
    })
}

fn verify(file: &File) -> Result<(), Reason> {
    let index = MmapLoader::from_file(file).map_err(load_reason)?;
    index.verify().map_err(|error| load_reason(error.into()))
}

async fn find(cache: &CacheDir, key: &str, bytes: u64) -> Option<File> {
    let (cache, key) = (cache.clone(), key.to_owned());
    blocking(move || Ok(cache.find(&key, bytes))).await.ok().flatten()
}

/// Reads the object in parts, several at a time, and writes each at its place in the file.
async fn download(
    store: &dyn ObjectStore,
    object: &ObjectMeta,
    claim: &Arc<Claim>,
    options: &SidecarOptions,
) -> Result<(), FetchError> {
    let part = options.fetch_part.max(1);
    let starts = (0..object.size.div_ceil(part)).map(|index| index * part);
    let parts = starts.map(|start| start..(start + part).min(object.size));
    tracing::debug!(part, parallel = options.fetch_parallel, "fetching a sidecar");
    let written = stream::iter(parts)
        .map(|range| async move {
            let bytes = fetch_part(store, object, range.clone(), options).await?;
            let claim = Arc::clone(claim);
            blocking(move || write_at(&claim, &bytes, range.start))
                .await
                .map_err(cache_failed)?;
            Ok(range.end - range.start)
        })
        .buffer_unordered(options.fetch_parallel.max(1));
    let done = written.try_fold(0, async |done, bytes| {
        tracing::trace!(done = done + bytes, of = object.size, "fetched a part");
        Ok(done + bytes)
    });
    done.await.map(|_| ())
}

/// Reads one part of exactly this version of the object, trying again where that may help.
async fn fetch_part(
    store: &dyn ObjectStore,
    object: &ObjectMeta,
    range: std::ops::Range<u64>,
    options: &SidecarOptions,
) -> Result<Vec<u8>, FetchError> {
    let mut detail = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tracing::debug!(attempt, %detail, "asking for a part again");
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        }
        match tokio::time::timeout(options.timeout, read_range(store, object, &range)).await {
            Err(_) => detail = format!("no answer within {:?}", options.timeout),
            Ok(Ok(bytes)) if bytes.len() as u64 == range.end - range.start => return Ok(bytes),
            Ok(Ok(bytes)) => {
                detail = format!("{} bytes came of {}", bytes.len(), range.end - range.start);
            }
            Ok(Err(error)) => match error {
                object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. } => {
                    return Err(FetchError::Changed);
                }
                object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. } => {
                    return Err(FetchError::Failed(Reason::Denied {
                        detail: redact(&error.to_string()),
                    }));
                }
                other => detail = redact(&other.to_string()),
            },
        }
    }
    Err(FetchError::Failed(Reason::Unavailable { detail }))
}

async fn read_range(
    store: &dyn ObjectStore,
    object: &ObjectMeta,
    range: &std::ops::Range<u64>,
) -> object_store::Result<Vec<u8>> {
    let whole = *range == (0..object.size);
    let options = GetOptions {
        range: (!whole).then(|| GetRange::Bounded(range.clone())),
        // A weak tag never matches a condition.
        if_match: object.e_tag.clone().filter(|tag| !tag.starts_with("W/")),
        ..GetOptions::default()
    };
    let location: &Path = &object.location;
    let answer = store.get_opts(location, options).await?;
    // Not every store heeds the condition.
    if let (Some(wanted), Some(found)) = (&object.e_tag, &answer.meta.e_tag)
        && wanted != found
    {
        return Err(object_store::Error::Precondition {
            path: location.to_string(),
            source: format!("wanted {wanted}, found {found}").into(),
        });
    }
    let expected = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(expected);
    let mut body = answer.into_stream();
    while let Some(chunk) = body.try_next().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > expected {
            break; // more than was asked for: refused by its length
        }
    }
    Ok(bytes)
}

#[cfg(unix)]
fn write_at(claim: &Claim, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(claim.file(), bytes, at)
}

#[cfg(windows)]
fn write_at(claim: &Claim, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(claim.file(), bytes, at)?;
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

fn cache_failed(error: io::Error) -> FetchError {
    FetchError::Failed(Reason::Cache {
        detail: error.to_string(),
    })
}

/// Runs file system work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}
