//! A Parquet file where it lies, and whether that is this machine.
//!
//! The URL of a store, its type and its name do not tell. A program may wrap the local file system, show a directory
//! of it as its root, or answer `file://` from memory. What a store hands out when it is read does tell: the local
//! file system hands out the open file and its path, and whatever passes that on leaves the bytes as they are. A store
//! that hands out a stream may decrypt it or take it from elsewhere, so its files are read through it.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt,
};
use quick_cache::sync::Cache;

use crate::stamp::Stamp;

/// How many local files are remembered. The store is asked again about others.
const REMEMBERED: usize = 16_384;

/// A Parquet file where it lies.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// The store that holds it.
    pub store: Arc<dyn ObjectStore>,
    /// The name of that store in DataFusion.
    pub store_url: ObjectStoreUrl,
    /// What the store's listing says of it.
    pub meta: ObjectMeta,
    /// The file on this machine, when that is what the store hands out.
    pub local: Option<Arc<LocalFile>>,
    as_listed: bool,
}

/// A file on this machine that a store hands out.
#[derive(Debug)]
pub(crate) struct LocalFile {
    /// Its path.
    pub path: PathBuf,
    /// The directory that the store shows as its root.
    pub root: PathBuf,
    /// The file as it was when the store was asked.
    pub stamp: Stamp,
    /// The same as a text: what a sidecar remembers of the file.
    pub tag: String,
}

impl SourceFile {
    /// Its path on this machine, or its URL in another store.
    pub(crate) fn path(&self) -> String {
        match (&self.local, self.store_url.as_str()) {
            (Some(local), _) => local.path.display().to_string(),
            (None, "file:///") => format!("/{}", self.meta.location),
            (None, store) => format!("{store}{}", self.meta.location),
        }
    }

    /// The same file, with an e-tag if its store has one that its listings leave out.
    pub(crate) async fn identified(mut self) -> Result<Self> {
        if self.local.is_none() && self.meta.e_tag.is_none() && self.meta.version.is_none() {
            self.meta.e_tag = self.store.head(&self.meta.location).await?.e_tag;
        }
        Ok(self)
    }

    /// The last part of the path.
    pub(crate) fn file_name(&self) -> &str {
        self.meta.location.filename().unwrap_or_default()
    }

    /// Whether the file was still the one that the listing described when it was looked for.
    ///
    /// Local files are asked (it costs a system call); for other stores the listing is believed, as DataFusion itself
    /// does.
    pub(crate) fn is_as_listed(&self) -> bool {
        self.as_listed
    }

    /// What tells this state of the file from others, as far as anybody knows.
    pub(crate) fn tag(&self) -> Option<&str> {
        match &self.local {
            Some(local) => Some(&local.tag),
            None => self.meta.e_tag.as_deref(),
        }
    }
}

/// The local files that were looked for so far.
#[derive(Debug)]
pub(crate) struct LocalFiles {
    seen: Cache<(usize, Path), Arc<Seen>>,
}

/// A local file, and what its store said of it.
#[derive(Debug)]
struct Seen {
    file: Arc<LocalFile>,
    meta: ObjectMeta,
    /// Keeps the address of the store, which is part of the key, from being given to another.
    _store: Weak<dyn ObjectStore>,
}

impl Default for LocalFiles {
    fn default() -> Self {
        Self {
            seen: Cache::new(REMEMBERED),
        }
    }
}

impl LocalFiles {
    /// The file that `listed` describes, with its place on this machine if it has one.
    ///
    /// Asks only stores of `file://` URLs, and those again only about files that changed.
    pub(crate) async fn source(
        &self,
        store: &Arc<dyn ObjectStore>,
        store_url: &ObjectStoreUrl,
        listed: &ObjectMeta,
    ) -> SourceFile {
        let (local, as_listed) = if store_url.as_str().starts_with("file://") {
            match self.look(store, &listed.location).await {
                Ok(Some(seen)) => (Some(Arc::clone(&seen.file)), is_same(listed, &seen.meta)),
                Err(object_store::Error::NotFound { .. }) => (None, false),
                // Whoever reads the file meets the error again.
                Ok(None) | Err(_) => (None, true),
            }
        } else {
            (None, true)
        };
        SourceFile {
            store: Arc::clone(store),
            store_url: store_url.clone(),
            meta: listed.clone(),
            local,
            as_listed,
        }
    }

    async fn look(
        &self,
        store: &Arc<dyn ObjectStore>,
        location: &Path,
    ) -> object_store::Result<Option<Arc<Seen>>> {
        let key = (Arc::as_ptr(store).cast::<()>().addr(), location.clone());
        if let Some(seen) = self.seen.get(&key)
            && std::fs::metadata(&seen.file.path).is_ok_and(|now| Stamp::of(&now) == seen.file.stamp)
        {
            return Ok(Some(seen));
        }
        // One byte: a store that is not local after all sends no more.
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..1)),
            ..GetOptions::default()
        };
        let answer = store.get_opts(location, options).await?;
        let Some(file) = handed_out(&answer) else {
            return Ok(None);
        };
        let seen = Arc::new(Seen {
            file: Arc::new(file),
            meta: answer.meta,
            _store: Arc::downgrade(store),
        });
        self.seen.insert(key, Arc::clone(&seen));
        Ok(Some(seen))
    }
}

/// The local file in an answer, if it is the object itself: at the object's name, of its size and its time.
fn handed_out(answer: &GetResult) -> Option<LocalFile> {
    let GetResultPayload::File(file, path) = &answer.payload else {
        return None;
    };
    let location = &answer.meta.location;
    let stamp = Stamp::of(&file.metadata().ok()?);
    let modified = micros(&stamp)?;
    let is_the_object = path.is_absolute()
        && path.ends_with(location.as_ref())
        && stamp.len() == answer.meta.size
        && modified == answer.meta.last_modified.timestamp_micros()
        && Stamp::of(&std::fs::metadata(path).ok()?) == stamp;
    let root = path.ancestors().nth(location.parts().count())?;
    is_the_object.then(|| LocalFile {
        path: path.clone(),
        root: root.to_owned(),
        stamp,
        tag: stamp.tag(),
    })
}

/// Whether two descriptions are of the same state of an object. E-tags are compared as a whole: what is in them is the
/// store's own affair.
fn is_same(listed: &ObjectMeta, now: &ObjectMeta) -> bool {
    let same_tag = match (&listed.e_tag, &now.e_tag) {
        (Some(listed), Some(now)) => listed == now,
        _ => true,
    };
    same_tag
        && listed.size == now.size
        && listed.last_modified.timestamp_micros() == now.last_modified.timestamp_micros()
}

/// Microseconds from the epoch to the last writing of a file, counted as stores count them.
fn micros(stamp: &Stamp) -> Option<i64> {
    use std::time::UNIX_EPOCH;
    let modified = stamp.modified()?;
    match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).ok(),
        Err(before) => {
            // A time before the epoch is rounded down, as a time after it is.
            let nanos = before.duration().as_nanos();
            i64::try_from(nanos.div_ceil(1000)).ok().map(|micros| -micros)
        }
    }
}
