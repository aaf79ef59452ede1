//! An open directory. What is done in it is done there, whatever happens to its name meanwhile, and no link that lies
//! in it is followed.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// A directory that is open.
#[derive(Debug)]
pub(crate) struct Directory {
    handle: File,
    path: PathBuf,
}

impl Directory {
    /// Where it was when it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.handle.metadata()
    }

    /// The handle, to give the directory its rights.
    pub(crate) fn handle(&self) -> &File {
        &self.handle
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};

    use super::*;

    /// For a directory opened to work in.
    const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
    /// For a file that somebody else may have put there: a pipe must not make us wait, a link must not lead us away.
    const WARY: OFlags = OFlags::NOFOLLOW
        .union(OFlags::NONBLOCK)
        .union(OFlags::NOCTTY)
        .union(OFlags::CLOEXEC);

    impl Directory {
        /// Opens a directory by its path, following links.
        pub(crate) fn open(path: &Path) -> io::Result<Self> {
            let path = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            let handle = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
            Ok(Self {
                handle: handle.into(),
                path: path.to_owned(),
            })
        }

        /// Opens a directory that lies in this one and is no link.
        pub(crate) fn child(&self, name: &OsStr) -> io::Result<Self> {
            let handle = openat(&self.handle, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            Ok(Self {
                handle: handle.into(),
                path: self.path.join(name),
            })
        }

        /// Makes a directory in this one, for this user alone.
        pub(crate) fn make(&self, name: &OsStr) -> io::Result<()> {
            Ok(mkdirat(&self.handle, name, Mode::RWXU)?)
        }

        /// Makes a file that was not there, for this user alone.
        pub(crate) fn create_new(&self, name: &OsStr) -> io::Result<File> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)?.into())
        }

        /// Opens the regular file of this name; `None` if something else has the name.
        pub(crate) fn open_file(&self, name: &OsStr, write: bool) -> io::Result<Option<File>> {
            // To open a device may do something, so it is looked at first.
            if self.kind(name)? != FileType::RegularFile {
                return Ok(None);
            }
            let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
            match openat(&self.handle, name, access | WARY, Mode::empty()) {
                Ok(file) => {
                    let file = File::from(file);
                    Ok(file.metadata()?.is_file().then_some(file))
                }
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        fn kind(&self, name: &OsStr) -> io::Result<FileType> {
            let stat = statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(FileType::from_raw_mode(stat.st_mode))
        }

        pub(crate) fn is_directory(&self, name: &OsStr) -> bool {
            self.kind(name).is_ok_and(|kind| kind == FileType::Directory)
        }

        pub(crate) fn is_link(&self, name: &OsStr) -> bool {
            self.kind(name).is_ok_and(|kind| kind == FileType::Symlink)
        }

        pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
            Ok(renameat(&self.handle, from, &self.handle, to)?)
        }

        /// Removes a name that is not a directory's.
        pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
            Ok(unlinkat(&self.handle, name, AtFlags::empty())?)
        }

        /// Removes a directory if it is empty.
        pub(crate) fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
            Ok(unlinkat(&self.handle, name, AtFlags::REMOVEDIR)?)
        }

        /// Whether this name is that of this open file.
        pub(crate) fn holds(&self, file: &File, name: &OsStr) -> bool {
            let there = statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW);
            match (file.metadata(), there) {
                #[allow(clippy::unnecessary_cast, reason = "the types differ from system to system")]
                (Ok(ours), Ok(there)) => {
                    ours.dev() == there.st_dev as u64 && ours.ino() == there.st_ino as u64
                }
                _ => false,
            }
        }

        /// Makes a change of names last through a power cut.
        pub(crate) fn sync(&self) -> io::Result<()> {
            self.handle.sync_all()
        }
    }
}

/// Elsewhere by paths: an open file can be neither renamed nor removed by others there.
#[cfg(not(unix))]
mod elsewhere {
    use std::fs::OpenOptions;

    use super::*;

    impl Directory {
        pub(crate) fn open(path: &Path) -> io::Result<Self> {
            let path = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            Ok(Self {
                handle: tempfile::tempfile()?,
                path: std::fs::read_dir(path).map(|_| path.to_owned())?,
            })
        }

        pub(crate) fn child(&self, name: &OsStr) -> io::Result<Self> {
            Self::open(&self.path.join(name))
        }

        pub(crate) fn make(&self, name: &OsStr) -> io::Result<()> {
            std::fs::create_dir(self.path.join(name))
        }

        pub(crate) fn create_new(&self, name: &OsStr) -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true);
            options.open(self.path.join(name))
        }

        pub(crate) fn open_file(&self, name: &OsStr, write: bool) -> io::Result<Option<File>> {
            let file = OpenOptions::new()
                .read(true)
                .write(write)
                .open(self.path.join(name))?;
            Ok(Some(file))
        }

        pub(crate) fn is_directory(&self, name: &OsStr) -> bool {
            self.path.join(name).is_dir()
        }

        pub(crate) fn is_link(&self, name: &OsStr) -> bool {
            self.path.join(name).is_symlink()
        }

        pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
            std::fs::rename(self.path.join(from), self.path.join(to))
        }

        pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
            std::fs::remove_file(self.path.join(name))
        }

        pub(crate) fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
            std::fs::remove_dir(self.path.join(name))
        }

        pub(crate) fn holds(&self, _: &File, name: &OsStr) -> bool {
            self.path.join(name).exists()
        }

        pub(crate) fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
