//! Whether a local Parquet file still holds the bytes that were indexed, when its name tag says it may not.
//!
//! The e-tag of a local file is made of its inode, time and size, so it changes when a table is copied or unpacked
//! with its sidecars. And without e-tags, two rows could change places unseen: a page of plain numbers keeps its
//! size, and the Parquet footer its statistics. So an equal e-tag is believed, and when it differs the whole file is
//! compared by its hash, once for each process.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use super::open_cache::Stamp;
use crate::sidecar::remote::download::blocking;

/// The property of a sidecar that holds the xxh3-128 of its source, in hexadecimal.
pub(crate) const CONTENT_HASH: &str = "content-hash";

/// A query waits for the hash of a file of up to this size; larger ones are hashed behind the scenes.
const WAIT: u64 = 256 << 20;

/// Files remembered at most.
const FILES: usize = 65_536;

/// The hashes of files as they were last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    hashes: HashMap<PathBuf, (Stamp, String)>,
    hashing: HashSet<PathBuf>,
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
    /// The hash of the file as it is now.
    pub(crate) async fn of(&self, path: &Path) -> Content {
        let Ok(meta) = std::fs::metadata(path) else {
            return Content::Unreadable;
        };
        let stamp = Stamp::of(&meta);
        if let Some((seen, hash)) = self.lock().hashes.get(path)
            && *seen == stamp
        {
            return Content::Hash(hash.clone());
        }
        let find_out = {
            let (known, path) = (self.clone(), path.to_owned());
            move || known.find_out(&path)
        };
        if meta.len() <= WAIT {
            return blocking(find_out)
                .await
                .map_or(Content::Unreadable, Content::Hash);
        }
        if self.lock().hashing.insert(path.to_owned()) {
            tracing::info!(path = %path.display(), bytes = meta.len(), "comparing a file with what was indexed");
            tokio::task::spawn_blocking(find_out);
        }
        Content::Pending
    }

    fn find_out(&self, path: &Path) -> io::Result<String> {
        let _done = Hashing { known: self, path };
        let (stamp, hash) = hash(path)?;
        let mut known = self.lock();
        if known.hashes.len() >= FILES {
            known.hashes.clear();
        }
        known.hashes.insert(path.to_owned(), (stamp, hash.clone()));
        Ok(hash)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives the file is being hashed. It goes with a panic, too: otherwise nobody would try the file again.
struct Hashing<'a> {
    known: &'a Contents,
    path: &'a Path,
}

impl Drop for Hashing<'_> {
    fn drop(&mut self) {
        self.known.lock().hashing.remove(self.path);
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
