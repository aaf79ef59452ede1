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

    /// The length of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// When the file was last written.
    #[cfg(feature = "datafusion")]
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// Whether `now` is this file and has not been written since. It may have got other rights or another link.
    #[cfg(feature = "datafusion")]
    pub(crate) fn is_unwritten(&self, now: &Self) -> bool {
        Self {
            changed: self.changed,
            ..*now
        } == *self
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

    /// The stamp as a text that names this state of the file, for another process to compare. It leaves out the number
    /// of the device, which changes from one start of the machine to the next.
    pub(crate) fn tag(&self) -> String {
        let nanos = |time: Option<SystemTime>| match time.map(|time| time.duration_since(UNIX_EPOCH)) {
            None => "-".to_owned(),
            Some(Ok(after)) => format!("{:x}", after.as_nanos()),
            Some(Err(before)) => format!("-{:x}", before.duration().as_nanos()),
        };
        let (modified, changed) = (nanos(self.modified), nanos(self.changed));
        format!("stat:{:x}:{:x}:{modified}:{changed}", self.inode, self.len)
    }

    /// The number of the device that holds the file.
    pub(crate) fn device(&self) -> u64 {
        self.device
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
    use std::fs::{File, metadata};

    #[cfg(unix)]
    #[test]
    fn other_rights_are_another_state_of_a_file_but_do_not_write_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        std::fs::write(&path, "one").expect("room");
        let stamp = || Stamp::of(&metadata(&path).expect("there"));
        let before = stamp();
        std::thread::sleep(Duration::from_millis(20));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
        assert_ne!(before.tag(), stamp().tag());
        assert!(before.is_unwritten(&stamp()));
        std::fs::write(&path, "two").expect("room");
        assert!(!before.is_unwritten(&stamp()));
    }

    /// Written again with its old time, in place or as a file that got the inode of the one before.
    #[cfg(unix)]
    #[test]
    fn a_file_written_again_with_its_old_time_has_another_tag() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        let written = |text: &str| {
            std::fs::write(&path, text).expect("room");
            let file = File::options().write(true).open(&path).expect("ours");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
                .expect("ours");
            Stamp::of(&file.metadata().expect("open")).tag()
        };
        let before = written("one");
        std::thread::sleep(Duration::from_millis(20));
        assert_ne!(before, written("two"));
    }

    #[test]
    fn a_file_written_just_now_is_not_settled() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        std::fs::write(&path, "one").expect("room");
        assert!(!Stamp::of(&metadata(&path).expect("there")).is_settled());
    }
}
