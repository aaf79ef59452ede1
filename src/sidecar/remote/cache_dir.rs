//! The private directory that holds local copies of remote sidecars.
//!
//! A copy is named after what it is a copy of (store, path, size, e-tag), so it never has to be asked whether it is
//! current. Several processes share the directory: a copy appears by rename, is being written under a locked name,
//! and may be removed while others have it mapped.

use std::fs::{DirBuilder, File, FileTimes, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::sidecar::local::directory::Directory;
use crate::sidecar::local::part_file::{Claim, Claimed, UNFINISHED, remove_leftover};
use crate::sidecar::local::rights::Rights;
use crate::sidecar::place::name::EXTENSION;

/// Uses of a copy closer together than this are noted once.
const TOUCH: Duration = Duration::from_secs(60);

/// The directory of copies, and how much it may hold.
#[derive(Clone, Debug)]
pub(crate) struct CacheDir {
    dir: Arc<Directory>,
    limit: u64,
}

impl CacheDir {
    /// The copies under `root`, in a directory of this user's that nobody else can change.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or if another user could put his own sidecars there: he would decide what our queries
    /// find.
    pub(crate) fn open(root: &Path, limit: u64) -> io::Result<Self> {
        let path = root.join("sidecars-1");
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
            builder.mode(0o700);
            builder.create(&path)?;
            let path = path.canonicalize()?;
            if let Some(why) = crate::sidecar::local::rights::others_can_change(&path)? {
                let text = format!("{why}; choose a directory of your own, with mode 700");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            let dir = Directory::open(&path)?;
            // Copies hold the vectors of files that others may have no right to read.
            if dir.metadata()?.permissions().mode() & 0o077 != 0 {
                dir.handle()
                    .set_permissions(std::fs::Permissions::from_mode(0o700))?;
            }
            Ok(Self {
                dir: Arc::new(dir),
                limit,
            })
        }
        #[cfg(not(unix))]
        {
            builder.create(&path)?;
            Ok(Self {
                dir: Arc::new(Directory::open(&path)?),
                limit,
            })
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the copy with this key is or will be.
    pub(crate) fn place(&self, key: &str) -> PathBuf {
        self.path().join(copy_name(key))
    }

    /// The place of a file of ours that is no copy. It must not end as copies and unfinished files do.
    pub(crate) fn private_file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The copy with this key if it is there with `bytes` bytes, open for reading; notes that it was used.
    pub(crate) fn find(&self, key: &str, bytes: u64) -> Option<File> {
        let name = copy_name(key);
        let copy = self.dir.open_file(name.as_ref(), false).ok()??;
        let meta = copy.metadata().ok()?;
        if meta.len() != bytes {
            // A power cut can leave a name without its bytes.
            let _ = self.dir.remove(name.as_ref());
            return None;
        }
        let used = last_use(&meta).elapsed().ok();
        if used.is_none_or(|ago| ago > TOUCH) {
            // Noted here, as the system often does not. The time of modification tells whether the bytes are still those
            // that were checked.
            let _ = copy.set_times(FileTimes::new().set_accessed(SystemTime::now()));
        }
        Some(copy)
    }

    /// Begins a copy of `bytes` bytes: makes room, and owns the unfinished file.
    pub(crate) fn begin(&self, key: &str, bytes: u64) -> io::Result<Claimed> {
        let claimed = Claim::take(&self.dir, format!("{key}.{UNFINISHED}").as_ref())?;
        if let Claimed::Ours(claim) = &claimed {
            self.make_room(bytes);
            claim.file().set_len(bytes)?;
        }
        Ok(claimed)
    }

    /// Removes a copy.
    pub(crate) fn remove(&self, key: &str) {
        let _ = self.dir.remove(copy_name(key).as_ref());
    }

    /// Removes leftovers of dead writers, then the copies used longest ago until `bytes` more fit.
    ///
    /// Returns how many copies were removed. Maps of a removed copy stay whole until they are dropped.
    pub(crate) fn make_room(&self, bytes: u64) -> usize {
        let Ok(entries) = std::fs::read_dir(self.path()) else {
            return 0;
        };
        let mut copies = Vec::new();
        let mut total = bytes;
        for entry in entries.flatten() {
            let path = entry.path();
            match path.extension().and_then(|ending| ending.to_str()) {
                Some(UNFINISHED) => {
                    remove_leftover(&self.dir, &entry.file_name());
                }
                Some(EXTENSION) => {
                    let Ok(meta) = entry.metadata() else { continue };
                    total = total.saturating_add(meta.len());
                    copies.push((last_use(&meta), path, meta.len()));
                }
                _ => {}
            }
        }
        copies.sort();
        let mut removed = 0;
        for (_, path, len) in copies {
            if total <= self.limit {
                break;
            }
            if std::fs::remove_file(&path).is_ok() {
                tracing::debug!(path = %path.display(), bytes = len, "removed a cached sidecar to make room");
                total -= len;
                removed += 1;
            }
        }
        removed
    }
}

/// The name of a copy.
fn copy_name(key: &str) -> String {
    format!("{key}.{EXTENSION}")
}

/// Puts a finished copy in place, for this user alone.
pub(crate) fn keep(claim: Claim, key: &str) -> io::Result<File> {
    claim.put_in_place(copy_name(key).as_ref(), &Rights::PRIVATE)
}

/// When a copy was last used.
fn last_use(meta: &Metadata) -> SystemTime {
    meta.accessed().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Where copies go when nobody says: the user's cache directory, or else one for this user among the temporary files.
pub(crate) fn default_root() -> PathBuf {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let users = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("LOCALAPPDATA"))
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    users.map_or_else(
        || std::env::temp_dir().join(temporary_name()),
        |users| users.join("datafusion-hnsw"),
    )
}

/// Users do not share this directory. One that another user has made under its name is refused.
#[cfg(unix)]
fn temporary_name() -> String {
    match crate::sidecar::local::rights::me() {
        Some(user) => format!("datafusion-hnsw-{user}"),
        None => "datafusion-hnsw".to_owned(),
    }
}

#[cfg(not(unix))]
fn temporary_name() -> String {
    "datafusion-hnsw".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &CacheDir, key: &str, bytes: &[u8], age: u64) {
        let Ok(Claimed::Ours(claim)) = cache.begin(key, bytes.len() as u64) else {
            panic!("ours")
        };
        io::Write::write_all(&mut claim.file(), bytes).expect("room");
        keep(claim, key).expect("a rename");
        let then = SystemTime::now() - Duration::from_secs(age);
        File::open(cache.place(key))
            .and_then(|file| file.set_times(FileTimes::new().set_accessed(then)))
            .expect("ours");
    }

    #[test]
    fn the_copies_used_longest_ago_make_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = CacheDir::open(dir.path(), 300).expect("a directory");
        put(&cache, "a", &[1; 100], 3000);
        put(&cache, "b", &[2; 100], 2000);
        put(&cache, "c", &[3; 100], 1000);
        assert!(cache.find("a", 100).is_some(), "used now");
        put(&cache, "d", &[4; 100], 0);
        let there = |key| cache.place(key).exists();
        assert_eq!(
            [there("a"), there("b"), there("c"), there("d")],
            [true, false, true, true]
        );
        assert_eq!(cache.make_room(300), 3);
    }

    #[test]
    fn a_copy_of_the_wrong_length_is_no_copy() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = CacheDir::open(dir.path(), 1000).expect("a directory");
        put(&cache, "a", &[1; 100], 0);
        assert!(cache.find("a", 101).is_none());
        assert!(!cache.place("a").exists());
    }

    #[test]
    fn leftovers_of_dead_writers_are_removed_and_live_ones_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = CacheDir::open(dir.path(), 1000).expect("a directory");
        let dead = cache.path().join("dead.part");
        std::fs::write(&dead, b"half").expect("a file");
        let Ok(Claimed::Ours(live)) = cache.begin("live", 10) else {
            panic!("ours")
        };
        assert!(!dead.exists());
        cache.make_room(0);
        assert!(cache.path().join("live.part").exists());
        drop(live);
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let cache = CacheDir::open(dir.path(), 1000).expect("a directory");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(cache.path(), open).expect("ours");
        let error = CacheDir::open(dir.path(), 1000).expect_err("others could write it");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_below_one_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let chmod = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
        };
        let root = dir.path().join("shared/cache");
        CacheDir::open(&root, 1000).expect("a directory");
        let shared = dir.path().join("shared");
        chmod(&shared, 0o777);
        let error = CacheDir::open(&root, 1000).expect_err("others could rename it");
        assert!(
            error.to_string().contains("can be written by every user"),
            "{error}"
        );
        // As in the directory of temporary files, others cannot rename it.
        chmod(&shared, 0o1777);
        CacheDir::open(&root, 1000).expect("a directory");
    }

    #[cfg(unix)]
    #[test]
    fn copies_are_for_their_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        std::fs::create_dir(dir.path().join("sidecars-1")).expect("room");
        std::fs::set_permissions(
            dir.path().join("sidecars-1"),
            std::fs::Permissions::from_mode(0o755),
        )
        .expect("ours");
        let cache = CacheDir::open(dir.path(), 1000).expect("a directory");
        put(&cache, "a", &[1; 100], 0);
        assert_eq!((mode(cache.path()), mode(&cache.place("a"))), (0o700, 0o600));
    }
}
