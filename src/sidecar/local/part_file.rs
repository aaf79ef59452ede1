//! A file being written: under a name of its own, owned through a lock, and put in place by one rename.
//!
//! The lock is the operating system's, so it ends with its process however that ends. A file that nobody holds is
//! the leftover of a dead writer, and whoever comes next takes it over or removes it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use super::rights::Rights;

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
    dir: Arc<Directory>,
    name: OsString,
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
    /// Makes an unfinished file of this name that is ours, empty, and readable by nobody else.
    ///
    /// The file is always a new one. Its name has to be the same for all writers, as they meet there; so somebody
    /// could have put anything under it, and what is found there is removed instead of being written to.
    pub(crate) fn take(dir: &Arc<Directory>, name: &OsStr) -> io::Result<Claimed> {
        let mut looks = 0;
        loop {
            match dir.create_new(name) {
                Ok(file) => match file.try_lock() {
                    // Between our making it and our locking it, somebody may have taken it for a leftover.
                    Ok(()) if dir.holds(&file, name) => return Ok(Claimed::Ours(Self::of(dir, name, file))),
                    Ok(()) | Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                        return Ok(Claimed::Ours(Self::of(dir, name, file)));
                    }
                    Err(TryLockError::Error(error)) => {
                        let _ = dir.remove(name);
                        return Err(error);
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if remove_found(dir, name)? {
                        continue;
                    }
                }
                Err(error) => return Err(error),
            }
            if looks == LOOKS {
                return Ok(Claimed::Busy);
            }
            looks += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn of(dir: &Arc<Directory>, name: &OsStr, file: File) -> Self {
        Self {
            dir: Arc::clone(dir),
            name: name.to_owned(),
            file,
            in_place: false,
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The directory that it lies in.
    pub(crate) fn dir(&self) -> &Directory {
        &self.dir
    }

    /// Gives the file its rights and renames it to `target`, at once and for good: its bytes are on disk before its
    /// name, and its name before this returns.
    ///
    /// Returns the file that is in place.
    pub(crate) fn put_in_place(mut self, target: &OsStr, rights: &Rights) -> io::Result<File> {
        rights.give(&self.file)?;
        self.file.sync_all()?;
        self.dir.rename(&self.name, target)?;
        self.in_place = true;
        // The lock would last for as long as a map of the file does.
        let _ = self.file.unlock();
        self.dir.sync()?;
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
            let _ = self.dir.remove(&self.name);
        }
    }
}

/// Removes what has the name of an unfinished file and is no living writer's; true if the name is free now.
fn remove_found(dir: &Directory, name: &OsStr) -> io::Result<bool> {
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        removed => removed.map(|()| true),
    };
    match dir.open_file(name, true) {
        Ok(Some(file)) => {
            let dead = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(_)) => is_abandoned(&file),
            };
            // Meanwhile its owner may have renamed the file into place: the name is then another's, or free.
            if dead && dir.holds(&file, name) {
                gone(dir.remove(name))
            } else {
                Ok(false)
            }
        }
        // A link, a pipe or a device: only its name goes.
        Ok(None) if dir.is_directory(name) => gone(dir.remove_directory(name)),
        Ok(None) => gone(dir.remove(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Removes an unfinished file if its writer is gone; true if it was.
pub(crate) fn remove_leftover(dir: &Directory, name: &OsStr) -> bool {
    remove_found(dir, name).unwrap_or(false)
}

/// Whether a writer is at the unfinished file right now.
pub(crate) fn is_claimed(dir: &Directory, name: &OsStr) -> bool {
    let file = dir.open_file(name, false).ok().flatten();
    file.is_some_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn is_abandoned(file: &File) -> bool {
    let modified = file.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::Path;

    fn open(dir: &tempfile::TempDir) -> Arc<Directory> {
        Arc::new(Directory::open(dir.path()).expect("a directory"))
    }

    fn ours(dir: &Arc<Directory>, name: &str) -> Claim {
        match Claim::take(dir, name.as_ref()).expect("a directory we may write") {
            Claimed::Ours(claim) => claim,
            Claimed::Busy => panic!("nobody else is there"),
        }
    }

    fn is_busy(dir: &Arc<Directory>, name: &str) -> bool {
        matches!(Claim::take(dir, name.as_ref()), Ok(Claimed::Busy))
    }

    #[test]
    fn a_claimed_file_is_busy_to_others_until_it_is_dropped() {
        let temp = tempfile::tempdir().expect("a directory");
        let (dir, name) = (open(&temp), "x.part");
        let claim = ours(&dir, name);
        assert!(is_busy(&dir, name));
        assert!(is_claimed(&dir, name.as_ref()));
        assert!(!remove_leftover(&dir, name.as_ref()));
        drop(claim);
        assert!(!temp.path().join(name).exists());
        drop(ours(&dir, name));
    }

    #[test]
    fn a_leftover_is_replaced_by_an_empty_file_or_removed() {
        let temp = tempfile::tempdir().expect("a directory");
        let (dir, name) = (open(&temp), "x.part");
        std::fs::write(temp.path().join(name), b"half a sidecar").expect("a file");
        assert!(!is_claimed(&dir, name.as_ref()));
        let claim = ours(&dir, name);
        assert_eq!(claim.file().metadata().expect("a file").len(), 0);
        claim.abandon();
        assert!(remove_leftover(&dir, name.as_ref()));
        assert!(!temp.path().join(name).exists());
    }

    /// What has another name too keeps its bytes, and a pipe makes nobody wait.
    #[cfg(unix)]
    #[test]
    fn what_somebody_put_under_the_name_is_removed_and_not_written_to() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().expect("a directory");
        let (dir, name) = (open(&temp), "x.part");
        let (path, precious) = (temp.path().join(name), temp.path().join("precious"));
        std::fs::write(&precious, "precious").expect("room");
        let pipe = |path: &Path| {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.is_ok_and(|status| status.success()));
        };
        let plants: [&dyn Fn(&Path); 5] = [
            &|path| std::os::unix::fs::symlink(&precious, path).expect("room"),
            &|path| std::os::unix::fs::symlink("/nowhere/at/all", path).expect("room"),
            &|path| std::fs::hard_link(&precious, path).expect("room"),
            &pipe,
            &|path| std::fs::create_dir(path).expect("room"),
        ];
        for plant in plants {
            plant(&path);
            assert!(!is_claimed(&dir, name.as_ref()));
            let claim = ours(&dir, name);
            claim.file().write_all(b"new").expect("room");
            let mode = claim.file().metadata().expect("ours").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            drop(claim);
            assert_eq!(std::fs::read_to_string(&precious).expect("there"), "precious");
        }
        std::fs::create_dir_all(path.join("full")).expect("room");
        assert!(
            Claim::take(&dir, name.as_ref()).is_err(),
            "it is not ours to empty"
        );
    }

    #[test]
    fn who_looks_for_leftovers_does_not_hinder_a_writer() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = open(&temp);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        for entry in std::fs::read_dir(temp.path()).expect("there").flatten() {
                            let _ = is_claimed(&dir, &entry.file_name());
                            remove_leftover(&dir, &entry.file_name());
                        }
                    }
                });
            }
            let busy = (0..3000)
                .filter(|number| is_busy(&dir, &format!("{number}.part")))
                .count();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            // On a busy machine one may fall asleep while it holds a lock. Without looking again it were some fifty.
            assert!(busy <= 3, "{busy} of 3000 were taken");
        });
    }

    #[test]
    fn a_file_put_in_place_is_never_truncated_by_one_who_opened_it_before() {
        let temp = tempfile::tempdir().expect("a directory");
        let (dir, target) = (open(&temp), temp.path().join("x"));
        std::thread::scope(|scope| {
            for worker in 0..4_u8 {
                let (dir, target) = (&dir, &target);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let Ok(Claimed::Ours(claim)) = Claim::take(dir, "x.part".as_ref()) else {
                            continue;
                        };
                        claim.file().write_all(&[worker; 64]).expect("room");
                        claim
                            .put_in_place("x".as_ref(), &Rights::PRIVATE)
                            .expect("a rename");
                        let found = std::fs::read(target).expect("published");
                        assert!(found.len() == 64 && found.iter().all(|byte| *byte == found[0]));
                    }
                });
            }
        });
    }
}
