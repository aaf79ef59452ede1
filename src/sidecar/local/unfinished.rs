//! Writing a sidecar of the local file system: under an unfinished name in the same directory, which one rename puts in
//! place. What builders that died left there is removed by whoever builds next.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::part_file::{Claim, Claimed, UNFINISHED, remove_leftover};
use super::rights::Rights;
use super::sidecar_dir::{self, DirectoryError, Missing};
use crate::sidecar::error::StoreError;
use crate::sidecar::place::home::LocalDir;
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
            let open = Directory::open(&dir)?;
            let names = std::fs::read_dir(dir)?.flatten().map(|entry| entry.file_name());
            let unfinished = names.filter(|name| name.to_str().is_some_and(is_unfinished));
            Ok(unfinished.filter(|name| remove_leftover(&open, name)).count())
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
pub(crate) fn unfinished(name: &SidecarName) -> OsString {
    format!(".{name}.{UNFINISHED}").into()
}

fn is_unfinished(name: &str) -> bool {
    let name = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(UNFINISHED)?.strip_suffix('.'));
    name.is_some_and(|name| SidecarName::parse(name).is_some())
}

/// Takes the right to write the sidecar of this name; `None` if its directory is missing and is not to be made.
pub(crate) async fn claim_local(
    home: LocalDir,
    name: SidecarName,
    missing: Missing,
) -> Result<Option<Claim>, StoreError> {
    let at = home.path().join(name.to_string()).display().to_string();
    let claimed = blocking(move || {
        for _ in 0..10 {
            let dir = match sidecar_dir::open(&home, missing) {
                Ok(Some(dir)) => dir,
                Ok(None) => return Ok(Ok(None)),
                Err(error) => return Ok(Err(error)),
            };
            if dir.is_directory(name.to_string().as_ref()) {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            match Claim::take(&dir, &unfinished(&name)) {
                // Somebody dropped the last sidecar, and the empty directory with it, just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                claimed => return claimed.map(|claimed| Ok(Some(claimed))),
            }
        }
        Err(io::Error::from(io::ErrorKind::NotFound))
    });
    match claimed.await {
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(Claimed::Ours(claim)))) => Ok(Some(claim)),
        Ok(Ok(Some(Claimed::Busy))) => Err(StoreError::Busy { at }),
        Ok(Err(DirectoryError::Untrusted(detail))) => Err(StoreError::Untrusted { at, detail }),
        Ok(Err(DirectoryError::Io(error))) | Err(error) => Err(StoreError::io(at, error)),
    }
}

/// Writes the claimed file and puts it in place; gives its bytes.
pub(crate) fn write_and_rename(
    claim: Claim,
    name: &SidecarName,
    rights: &Rights,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<u64> {
    step_by_step(claim, name, rights, write, &|_| Ok(()))
}

fn step_by_step(
    claim: Claim,
    name: &SidecarName,
    rights: &Rights,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    step: &dyn Fn(Step) -> io::Result<()>,
) -> io::Result<u64> {
    step(Step::Claimed)?;
    let bytes = write_out(&claim, write)?;
    step(Step::Written)?;
    claim.put_in_place(name.to_string().as_ref(), rights)?;
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
    use std::sync::Arc;

    use super::*;
    use crate::hnsw::VectorMetric;

    const FILE: &str = "t.parquet.v.l2.hnsw";
    const PART: &str = ".t.parquet.v.l2.hnsw.part";

    fn name() -> SidecarName {
        SidecarName::new("t.parquet", "v", VectorMetric::Euclidean)
    }

    fn claim(dir: &tempfile::TempDir) -> Claim {
        let dir = Arc::new(Directory::open(dir.path()).expect("a directory"));
        match Claim::take(&dir, &unfinished(&name())).expect("a directory we may write") {
            Claimed::Ours(claim) => claim,
            Claimed::Busy => panic!("nobody else is there"),
        }
    }

    #[test]
    fn a_publish_interrupted_at_any_step_leaves_the_old_file_or_the_new_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, part) = (dir.path().join(FILE), dir.path().join(PART));
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
            let done = step_by_step(
                claim(&dir),
                &name(),
                &Rights::PRIVATE,
                |out| out.write_all(b"new"),
                &step,
            );
            assert!(done.is_err());
            assert_eq!(std::fs::read_to_string(&path).expect("there"), expected);
            assert!(!part.exists());
        }
    }

    #[test]
    fn a_writer_that_fails_leaves_the_old_file_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, part) = (dir.path().join(FILE), dir.path().join(PART));
        std::fs::write(&path, "old").expect("room");
        let fails = |out: &mut dyn Write| {
            out.write_all(&[0; 3 << 20])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let done = write_and_rename(claim(&dir), &name(), &Rights::PRIVATE, fails);
        assert_eq!(
            done.map_err(|error| error.kind()),
            Err(io::ErrorKind::StorageFull)
        );
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "old");
        assert!(!part.exists());
    }

    #[test]
    fn what_a_killed_writer_left_does_not_hinder_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, part) = (dir.path().join(FILE), dir.path().join(PART));
        let dead = claim(&dir);
        dead.file().set_len(1 << 20).expect("room");
        dead.abandon();
        assert!(part.exists());
        let done = write_and_rename(claim(&dir), &name(), &Rights::PRIVATE, |out| {
            out.write_all(b"new")
        });
        assert_eq!(done.expect("published"), 3);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "new");
        assert!(!part.exists());
    }
}
