//! Writing a sidecar of the local file system: under an unfinished name in the same directory, which one rename puts in
//! place. What builders that died left there is removed by whoever builds next.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::part_file::{Claim, Claimed, UNFINISHED, remove_leftover};
use crate::sidecar::error::StoreError;
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::remote::download::blocking;
use crate::sidecar::store::SidecarStore;

/// How often a directory is searched for leftovers.
const SWEEP: Duration = Duration::from_secs(60);

impl SidecarStore {
    /// Removes what builders that died left in the directory, once in a while.
    pub(crate) async fn sweep(&self, dir: &Path) {
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
}

/// Where a local publish can be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Claimed,
    Written,
    Done,
}

/// The name of the unfinished file for a local sidecar: hidden, and never taken for Parquet or for a sidecar.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
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
pub(crate) enum Missing {
    /// The subdirectory beside a Parquet file: the directory of the file is there.
    Last,
    /// All the way under a directory that mirrors other places.
    All,
    /// Not at all.
    None,
}

pub(crate) async fn claim_local(dir: PathBuf, path: PathBuf, missing: Missing) -> Result<Claim, StoreError> {
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

/// Writes the claimed file and puts it in place; gives its bytes.
pub(crate) fn write_and_rename(
    claim: Claim,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<u64> {
    step_by_step(claim, path, write, &|_| Ok(()))
}

fn step_by_step(
    claim: Claim,
    path: &Path,
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

pub(crate) fn write_out(
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

    fn claim(path: &Path) -> Claim {
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
            let done = step_by_step(claim(&path), &path, |out| out.write_all(b"new"), &step);
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
        let done = write_and_rename(claim(&path), &path, fails);
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
        let done = write_and_rename(claim(&path), &path, |out| out.write_all(b"new"));
        assert_eq!(done.expect("published"), 3);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "new");
        assert!(!unfinished(&path).exists());
    }
}
