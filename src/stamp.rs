//! What tells a local file from the one that had its name before, by what the file system says of it.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest time for which a file system may give two changes the same time: FAT counts in steps of two seconds.
const TICK: Duration = Duration::from_secs(2);

/// Length, times and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    device: u64,
    inode: u64,
    /// When its bytes, its name or its rights last changed. No program can set this time.
    changed: Option<SystemTime>,
}

impl Stamp {
    /// The stamp of the file that `meta` describes.
    pub(crate) fn of(meta: &Metadata) -> Self {
        #[cfg(unix)]
        let (device, inode, changed) = {
            use std::os::unix::fs::MetadataExt;
            (
                meta.dev(),
                meta.ino(),
                since_epoch(meta.ctime(), meta.ctime_nsec()),
            )
        };
        #[cfg(not(unix))]
        let (device, inode, changed) = (0, 0, None);
        Self {
            len: meta.len(),
            modified: meta.modified().ok(),
            device,
            inode,
            changed,
        }
    }

    /// Whether both describe one file, changed or not.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The stamp of a file whose time of last use others note, which counts as a change of it but not of its bytes.
    pub(crate) fn without_change_time(self) -> Self {
        Self {
            changed: None,
            ..self
        }
    }

    /// Whether every change from now on will show in the times of the file. A file that was changed a moment ago may
    /// be changed again and keep its times.
    pub(crate) fn is_settled(&self) -> bool {
        let old =
            |time: Option<SystemTime>| time.is_none_or(|time| time.elapsed().is_ok_and(|age| age > TICK));
        self.modified.is_some() && old(self.modified) && old(self.changed)
    }
}

#[cfg(unix)]
fn since_epoch(seconds: i64, nanos: i64) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    start?.checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::metadata;

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_changed_in_place_is_the_same_file_with_another_stamp() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        let stamp = || Stamp::of(&metadata(&path).expect("there"));
        std::fs::write(&path, "one").expect("room");
        let before = stamp();
        std::fs::write(&path, "longer").expect("room");
        assert!(before != stamp() && before.is_same_file(&stamp()));
        let other = dir.path().join("y");
        std::fs::write(&other, "one").expect("room");
        let other = Stamp::of(&metadata(&other).expect("there"));
        assert!(!before.is_same_file(&other));
    }

    #[test]
    fn a_file_written_just_now_is_not_settled() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        std::fs::write(&path, "one").expect("room");
        assert!(!Stamp::of(&metadata(&path).expect("there")).is_settled());
    }
}
