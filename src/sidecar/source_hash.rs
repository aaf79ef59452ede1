//! Whether a local Parquet file still holds the bytes that were indexed, when its name tag says it may not.
//!
//! The tag of a local file is made of its inode, times and size, so it changes when a table is copied or unpacked with
//! its sidecars. And without tags, two rows could change places unseen: a page of plain numbers keeps its size, and
//! the Parquet footer its statistics. So an equal tag is believed, and when it differs the whole file is compared by
//! its hash. The hash is found out once for each state of a file, and kept for later processes.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::task::AbortHandle;
use xxhash_rust::xxh3::Xxh3;

use crate::sidecar::local::known_hashes::KnownHashes;
use crate::sidecar::remote::download::blocking;
use crate::stamp::Stamp;

/// The property of a sidecar that holds the xxh3-128 of its source, in hexadecimal.
pub(crate) const CONTENT_HASH: &str = "content-hash";

/// The name of the file in the directory of copies that keeps hashes for later processes.
pub(crate) const KNOWN_HASHES: &str = "source-hashes";

/// A query waits for the hash of a file of up to this size, whatever it would read instead.
pub(crate) const WAIT: u64 = 256 << 20;

/// A query also waits for the hash of a larger file if that has at most this many times the bytes that an exact
/// answer reads. Hashing takes a small part of the time of decoding and comparing as many bytes.
const WAIT_TIMES: u64 = 2;

/// Files remembered at most.
const FILES: usize = 65_536;

/// The hashes of files as they were last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    hashes: HashMap<PathBuf, (Stamp, String)>,
    hashing: HashMap<PathBuf, Hashing>,
    kept: Option<KnownHashes>,
}

/// A file that is being hashed for everyone who asks for it.
#[derive(Clone)]
struct Hashing {
    task: AbortHandle,
    done: Shared<BoxFuture<'static, Option<(Stamp, String)>>>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("hashes", &self.hashes.len())
            .field("hashing", &self.hashing.keys())
            .finish_non_exhaustive()
    }
}

/// What is known about the contents of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Hash(String),
    /// It is being found out.
    Pending,
    /// It cannot be read.
    Unreadable,
}

impl Contents {
    /// The hash of the file as it is now, if this process has found it out.
    pub(crate) fn remembered(&self, path: &Path) -> Option<String> {
        let stamp = Stamp::of(&std::fs::metadata(path).ok()?);
        let known = self.lock();
        let (seen, hash) = known.hashes.get(path)?;
        (*seen == stamp).then(|| hash.clone())
    }

    /// The hash of the file as it is now: as an earlier process kept it at `kept`, or found out and kept there.
    ///
    /// Waits for it if the caller would otherwise read about as many bytes, `instead`. A larger file is hashed behind
    /// the scenes.
    pub(crate) async fn find_out(&self, path: &Path, kept: Option<PathBuf>, instead: u64) -> Content {
        if let Some(kept) = kept {
            let known = self.clone();
            let _ = blocking(move || {
                known.load(&kept);
                Ok(())
            })
            .await;
        }
        // Once more if what was being hashed already turns out to be the file before this one.
        for _ in 0..2 {
            let Ok(meta) = std::fs::metadata(path) else {
                return Content::Unreadable;
            };
            let stamp = Stamp::of(&meta);
            let hashing = match self.known_or_begun(path, stamp) {
                Ok(hash) => return Content::Hash(hash),
                Err(hashing) => hashing,
            };
            if stamp.len() > WAIT.max(instead.saturating_mul(WAIT_TIMES)) {
                return Content::Pending;
            }
            match hashing.done.await {
                Some((hashed, hash)) if hashed == stamp => return Content::Hash(hash),
                _ => {}
            }
        }
        Content::Unreadable
    }

    /// Reads what earlier processes found out, once for each place.
    fn load(&self, kept: &Path) {
        let is_loaded = |known: &Known| known.kept.as_ref().is_some_and(|now| now.path() == kept);
        if !is_loaded(&self.lock()) {
            let loaded = KnownHashes::load(kept);
            self.lock().kept = Some(loaded);
        }
    }

    /// The hash, or who is finding it out from now on.
    fn known_or_begun(&self, path: &Path, stamp: Stamp) -> Result<String, Hashing> {
        let mut known = self.lock();
        if let Some((seen, hash)) = known.hashes.get(path)
            && *seen == stamp
        {
            return Ok(hash.clone());
        }
        if let Some(hash) = known.kept.as_ref().and_then(|kept| kept.get(path, &stamp)) {
            known.remember(path, stamp, hash.clone());
            return Ok(hash);
        }
        // One that ended without a result, in a panic perhaps, is begun again.
        if let Some(hashing) = known.hashing.get(path)
            && !hashing.task.is_finished()
        {
            return Err(hashing.clone());
        }
        tracing::info!(path = %path.display(), bytes = stamp.len(), "comparing a file with what was indexed");
        let (contents, of) = (self.clone(), path.to_owned());
        let task = tokio::task::spawn_blocking(move || contents.hash(&of));
        let hashing = Hashing {
            task: task.abort_handle(),
            done: task.map(|done| done.ok()?.ok()).boxed().shared(),
        };
        if known.hashing.len() >= FILES {
            known.hashing.retain(|_, hashing| !hashing.task.is_finished());
        }
        known.hashing.insert(path.to_owned(), hashing.clone());
        Err(hashing)
    }

    fn hash(&self, path: &Path) -> io::Result<(Stamp, String)> {
        let before = Stamp::of(&std::fs::metadata(path)?);
        let is_settled = before.is_settled();
        let (stamp, hash) = hash(path)?;
        let mut known = self.lock();
        known.remember(path, stamp, hash.clone());
        // What may still change without showing it is not told to later processes.
        if is_settled
            && stamp == before
            && let Some(kept) = &mut known.kept
        {
            kept.keep(path, &stamp, &hash);
        }
        known.hashing.remove(path);
        Ok((stamp, hash))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remember(&mut self, path: &Path, stamp: Stamp, hash: String) {
        if self.hashes.len() >= FILES {
            self.hashes.clear();
        }
        self.hashes.insert(path.to_owned(), (stamp, hash));
    }
}

/// The hash of all bytes of a file, and the file that they were.
pub(crate) fn hash(path: &Path) -> io::Result<(Stamp, String)> {
    let mut file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    if Stamp::of(&file.metadata()?) != stamp {
        return Err(io::Error::other("it changed while it was read"));
    }
    Ok((stamp, format!("{:032x}", hash.digest128())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_file_is_waited_for_if_as_much_would_be_read_instead() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        // Takes no room on most file systems.
        let file = File::create(&path).expect("room");
        file.set_len(WAIT + 1).expect("room");
        let ask = async |contents: &Contents, instead| contents.find_out(&path, None, instead).await;
        assert_eq!(ask(&Contents::default(), WAIT / 4).await, Content::Pending);
        let contents = Contents::default();
        let found = ask(&contents, WAIT).await;
        assert!(matches!(found, Content::Hash(_)), "{found:?}");
        assert_eq!(ask(&contents, 0).await, found, "it is remembered");
    }

    #[tokio::test]
    async fn a_file_is_hashed_once_for_all_who_ask_at_the_same_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        std::fs::write(&path, vec![7; 8 << 20]).expect("room");
        let contents = Contents::default();
        let stamp = Stamp::of(&std::fs::metadata(&path).expect("there"));
        let tasks: Vec<_> = (0..8)
            .filter_map(|_| contents.known_or_begun(&path, stamp).err())
            .map(|hashing| hashing.task.id())
            .collect();
        assert!(tasks.windows(2).all(|pair| pair[0] == pair[1]), "{tasks:?}");
    }

    #[tokio::test]
    async fn what_ended_without_a_result_is_begun_again() {
        let contents = Contents::default();
        let path = Path::new("no such file");
        assert_eq!(contents.find_out(path, None, 0).await, Content::Unreadable);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        std::fs::write(&path, "one").expect("room");
        // As a panic would leave it.
        let task = tokio::task::spawn_blocking(|| ());
        let hashing = Hashing {
            task: task.abort_handle(),
            done: futures::future::ready(None).boxed().shared(),
        };
        task.await.expect("done");
        contents.lock().hashing.insert(path.clone(), hashing);
        assert!(matches!(
            contents.find_out(&path, None, 0).await,
            Content::Hash(_)
        ));
    }
}
