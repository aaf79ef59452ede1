//! A file being written: under a name of its own, owned through a lock, and put in place by one rename.
//!
//! The lock is the operating system's, so it ends with its process however that ends. A file that nobody holds is
//! the leftover of a dead writer, and whoever comes next takes it over or removes it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a file being written ends with.
pub(crate) const UNFINISHED: &str = "part";

/// Where the file system cannot lock, a file untouched for this long counts as left behind.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How often an unfinished file that is locked is looked at again, a millisecond apart: who only looks whether its
/// writer is alive, or removes it as a leftover, holds the lock for a moment.
const LOOKS: u32 = 50;

/// An unfinished file that is ours alone. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    file: File,
    in_place: bool,
}

/// What came of trying to own an unfinished file.
#[derive(Debug)]
pub(crate) enum Claimed {
    Ours(Claim),
    /// Another writer, of this process or of another, is at it.
    Busy,
}

impl Claim {
    /// Makes the file at `path` ours and empty.
    pub(crate) fn take(path: &Path) -> io::Result<Claimed> {
        let mut looks = 0;
        loop {
            let existed = path.exists();
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if looks < LOOKS => {
                    looks += 1;
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Ok(Claimed::Busy),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    if existed && !is_abandoned(&file) {
                        return Ok(Claimed::Busy);
                    }
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Between our open and our lock the former owner may have renamed the file into place or removed it:
            // what we hold is then a published sidecar or nothing, and must not be touched.
            if is_at(&file, path) {
                file.set_len(0)?;
                return Ok(Claimed::Ours(Claim {
                    path: path.to_owned(),
                    file,
                    in_place: false,
                }));
            }
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Renames the file to `target` at once and for good: its bytes are on disk before its name, and its name
    /// before this returns.
    ///
    /// Returns the file that is in place.
    pub(crate) fn put_in_place(mut self, target: &Path) -> io::Result<File> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, target)?;
        self.in_place = true;
        // The lock would last for as long as a map of the file does.
        let _ = self.file.unlock();
        sync_dir(target)?;
        self.file.try_clone()
    }

    /// Leaves everything as a killed process would.
    #[cfg(test)]
    pub(crate) fn abandon(mut self) {
        self.in_place = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.in_place {
            // Still locked, so it is ours that we remove.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes an unfinished file if its writer is gone; true if it was.
pub(crate) fn remove_leftover(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else {
        return false;
    };
    let dead = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => is_abandoned(&file),
    };
    dead && is_at(&file, path) && std::fs::remove_file(path).is_ok()
}

/// Whether a writer is at the unfinished file right now.
pub(crate) fn is_claimed(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Makes a change of a name last through a power cut.
pub(crate) fn sync_dir(of: &Path) -> io::Result<()> {
    let dir = match of.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

fn is_abandoned(file: &File) -> bool {
    let modified = file.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED))
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
        _ => false,
    }
}

/// Elsewhere an open file can be neither renamed nor removed by others, so it is where we opened it.
#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn ours(path: &Path) -> Claim {
        match Claim::take(path).expect("a directory we may write") {
            Claimed::Ours(claim) => claim,
            Claimed::Busy => panic!("nobody else is there"),
        }
    }

    #[test]
    fn a_claimed_file_is_busy_to_others_until_it_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.part");
        let claim = ours(&path);
        assert!(matches!(Claim::take(&path), Ok(Claimed::Busy)));
        assert!(is_claimed(&path));
        assert!(!remove_leftover(&path));
        drop(claim);
        assert!(!path.exists());
        drop(ours(&path));
    }

    #[test]
    fn a_leftover_is_taken_over_empty_or_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.part");
        std::fs::write(&path, b"half a sidecar").expect("a file");
        assert!(!is_claimed(&path));
        let claim = ours(&path);
        assert_eq!(claim.file().metadata().expect("a file").len(), 0);
        claim.abandon();
        assert!(remove_leftover(&path));
        assert!(!path.exists());
    }

    #[test]
    fn who_looks_for_leftovers_does_not_hinder_a_writer() {
        let dir = tempfile::tempdir().expect("a directory");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        for entry in std::fs::read_dir(dir.path()).expect("there").flatten() {
                            let _ = is_claimed(&entry.path());
                            remove_leftover(&entry.path());
                        }
                    }
                });
            }
            let busy = (0..3000)
                .filter(|number| {
                    let path = dir.path().join(format!("{number}.part"));
                    matches!(Claim::take(&path), Ok(Claimed::Busy))
                })
                .count();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            // On a busy machine one may fall asleep while it holds a lock. Without looking again it were some fifty.
            assert!(busy <= 3, "{busy} of 3000 were taken");
        });
    }

    #[test]
    fn a_file_put_in_place_is_never_truncated_by_one_who_opened_it_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, target) = (dir.path().join("x.part"), dir.path().join("x"));
        std::thread::scope(|scope| {
            for worker in 0..4_u8 {
                let (path, target) = (&path, &target);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let Ok(Claimed::Ours(claim)) = Claim::take(path) else {
                            continue;
                        };
                        claim.file().write_all(&[worker; 64]).expect("room");
                        claim.put_in_place(target).expect("a rename");
                        let found = std::fs::read(target).expect("published");
                        assert!(found.len() == 64 && found.iter().all(|byte| *byte == found[0]));
                    }
                });
            }
        });
    }
}
