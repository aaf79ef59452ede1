//! Whether the bytes of a sidecar file are those that were written.
//!
//! A file is read once, in pieces, against the checksums of its footer. What came of it is remembered for the process,
//! by what tells this file from others and from itself before a change. A check that was stopped goes on later where it
//! ended.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use super::reason::Reason;
use crate::format::{Checksum, FormatError};
use crate::stamp::Stamp;

/// Bytes that are read and hashed at a time: they stay in a core's cache in between.
const PIECE: usize = 256 << 10;

/// Files remembered at most.
const FILES: usize = 65_536;

/// What is known about the bytes of one file.
#[derive(Debug, Default)]
pub(crate) struct Integrity {
    damage: OnceLock<Reason>,
    is_whole: AtomicBool,
    lists_are_whole: AtomicBool,
    /// Whether the file waits for a check in the background, or is being checked there.
    pub(super) is_queued: AtomicBool,
    /// How far a check that was stopped had come.
    progress: Mutex<Option<Box<Progress>>>,
    /// Held by the query that waits for a check: others wait for it instead of reading the file too.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// How far a check has come.
#[derive(Clone)]
struct Progress {
    /// The checksum at hand.
    number: usize,
    /// Bytes of its blob that were hashed.
    done: usize,
    hash: Xxh3,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress")
            .field("number", &self.number)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

type Known = HashMap<(PathBuf, Stamp), Arc<Integrity>>;

impl Integrity {
    /// What is known about the file at `path` with this stamp.
    pub(crate) fn of(path: &Path, stamp: Stamp) -> Arc<Self> {
        static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
        // A file that was written a moment ago could be written again without getting another time.
        if !stamp.is_settled() {
            return Arc::default();
        }
        let known = KNOWN.get_or_init(Mutex::default);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= FILES {
            known.retain(|_, integrity| Arc::strong_count(integrity) > 1);
        }
        if known.len() >= FILES {
            known.clear();
        }
        Arc::clone(known.entry((path.to_owned(), stamp)).or_default())
    }

    /// Why the file cannot be used, if that is known.
    pub(crate) fn damage(&self) -> Option<&Reason> {
        self.damage.get()
    }

    /// Notes damage.
    pub(crate) fn set_damage(&self, section: &str, detail: impl Into<String>) {
        let (section, detail) = (section.to_owned(), detail.into());
        let _ = self.damage.set(Reason::Damaged { section, detail });
    }

    /// Whether every byte was checked.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Acquire) && self.damage().is_none()
    }

    /// Notes that every byte was checked.
    pub(crate) fn set_whole(&self) {
        self.is_whole.store(true, Ordering::Release);
    }

    /// Checks the lists of a sidecar, unless that was done.
    pub(crate) fn check_lists(&self, check: impl FnOnce() -> Result<(), FormatError>) {
        if self.lists_are_whole.load(Ordering::Acquire) {
            return;
        }
        match check() {
            Ok(()) => self.lists_are_whole.store(true, Ordering::Release),
            Err(FormatError::Damaged { section, reason }) => self.set_damage(section, reason),
            Err(error) => self.set_damage("lists", error.to_string()),
        }
    }

    /// Reads what was not checked yet, as long as `go_on` says so, and notes what came of it.
    pub(crate) fn check(&self, checksums: &[Checksum], bytes: Bytes<'_>, go_on: impl Fn() -> bool) {
        let before = self.progress().take();
        let mut at = before.map_or_else(Progress::begin, |progress| *progress);
        match at.advance(checksums, bytes, go_on) {
            Ok(true) => self.set_whole(),
            Ok(false) => *self.progress() = Some(Box::new(at)),
            Err((section, detail)) => self.set_damage(section, detail),
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Option<Box<Progress>>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn begin() -> Self {
        Self {
            number: 0,
            done: 0,
            hash: Xxh3::new(),
        }
    }

    /// True if all checksums agree, false if it was stopped before that; or the section that does not, and why.
    fn advance(
        &mut self,
        checksums: &[Checksum],
        mut bytes: Bytes<'_>,
        go_on: impl Fn() -> bool,
    ) -> Result<bool, (&'static str, String)> {
        while let Some(checksum) = checksums.get(self.number) {
            let begin = checksum.place.start.saturating_add(self.done);
            let piece = begin..checksum.place.end.min(begin.saturating_add(PIECE));
            if !piece.is_empty() {
                if !go_on() {
                    return Ok(false);
                }
                let length = piece.len();
                let read = bytes.read(piece);
                let read = read.map_err(|error| (checksum.section, format!("it cannot be read: {error}")))?;
                self.hash.update(read);
                self.done += length;
                continue;
            }
            checksum
                .check(self.hash.digest())
                .map_err(|_| (checksum.section, "the checksum does not agree".to_owned()))?;
            (self.number, self.done, self.hash) = (self.number + 1, 0, Xxh3::new());
        }
        Ok(true)
    }
}

/// Where the bytes to be checked are.
#[derive(Debug)]
pub(crate) enum Bytes<'a> {
    /// In a file, which is read from its beginning to its end: that is faster than touching a map page by page, and
    /// a page that the disk does not deliver is an error.
    File(&'a File, Vec<u8>),
    /// In memory.
    Memory(&'a [u8]),
}

impl<'a> Bytes<'a> {
    pub(crate) fn of_file(file: &'a File) -> Self {
        Self::File(file, vec![0; PIECE])
    }

    fn read(&mut self, range: Range<usize>) -> io::Result<&[u8]> {
        match self {
            Self::Memory(bytes) => bytes
                .get(range)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            Self::File(file, buffer) => {
                let buffer = &mut buffer[..range.len()];
                read_at(file, buffer, range.start as u64)?;
                Ok(buffer)
            }
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use xxhash_rust::xxh3::xxh3_64;

    fn checksums(bytes: &[u8]) -> Vec<Checksum> {
        let middle = bytes.len() / 3;
        [("codes", 0..middle), ("vectors", middle..bytes.len())]
            .map(|(section, place)| Checksum {
                section,
                sum: xxh3_64(&bytes[place.clone()]),
                place,
            })
            .to_vec()
    }

    fn bytes() -> Vec<u8> {
        (0..3 * PIECE + 17)
            .map(|i| u8::try_from(i % 251).expect("below 251"))
            .collect()
    }

    #[test]
    fn a_check_that_is_stopped_again_and_again_ends_and_reads_every_byte_once() {
        let bytes = bytes();
        let sums = checksums(&bytes);
        let integrity = Integrity::default();
        for rounds in 1.. {
            assert!(rounds < 100);
            let turns = Cell::new(0);
            let go_on = || turns.replace(turns.get() + 1) == 0;
            integrity.check(&sums, Bytes::Memory(&bytes), go_on);
            if integrity.is_whole() {
                // Three pieces and a bit, in two blobs.
                assert!((4..=6).contains(&rounds), "{rounds}");
                break;
            }
        }
        assert!(integrity.damage().is_none());
    }

    #[test]
    fn a_flipped_bit_and_a_missing_end_are_found_and_named() {
        let good = bytes();
        let sums = checksums(&good);
        let damage = |bytes: &[u8]| {
            let integrity = Integrity::default();
            integrity.check(&sums, Bytes::Memory(bytes), || true);
            assert_eq!(integrity.is_whole(), integrity.damage().is_none());
            integrity.damage().map(|reason| reason.code().into_owned())
        };
        assert_eq!(damage(&good), None);
        let mut bad = good.clone();
        bad[PIECE / 2] ^= 4;
        assert_eq!(damage(&bad).as_deref(), Some("damaged:codes"));
        bad = good.clone();
        *bad.last_mut().expect("some") ^= 1;
        assert_eq!(damage(&bad).as_deref(), Some("damaged:vectors"));
        assert_eq!(
            damage(&good[..good.len() - 1]).as_deref(),
            Some("damaged:vectors")
        );
    }
}
