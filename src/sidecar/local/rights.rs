//! Who may read what we write, and whose directories are believed.
//!
//! A sidecar holds the vectors of its Parquet file, so nobody may read it who may not read that file. And whoever
//! can write a sidecar decides which rows a query finds, so only those are believed who could as well have written
//! the Parquet file: this user, root, and whoever owns or shares the directory of the file.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// The mode, the owner and the group that a file or directory is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    mode: u32,
    owner: Option<u32>,
    group: Option<u32>,
}

impl Rights {
    /// For this user alone.
    pub(crate) const PRIVATE: Self = Self {
        mode: 0o600,
        owner: None,
        group: None,
    };
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    use std::sync::OnceLock;

    use super::*;

    /// Writable by everybody who is not the owner and not in the group.
    const OTHERS_WRITE: u32 = 0o002;
    /// Writable by the group.
    const GROUP_WRITES: u32 = 0o020;
    /// Entries can only be renamed and removed by their owners.
    const STICKY: u32 = 0o1000;

    /// The attribute that holds the rights of further users and groups.
    #[cfg(target_os = "linux")]
    const ACCESS_LIST: &str = "system.posix_acl_access";

    impl Rights {
        /// Those of a file that holds the same data.
        pub(crate) fn of_file(path: &Path) -> io::Result<Self> {
            let meta = std::fs::metadata(path)?;
            let mut mode = meta.mode() & 0o666;
            if has_access_list(path) {
                // The group's bits are then the most that anybody in the list may do, and not what the group may.
                mode &= 0o606;
            }
            Ok(Self {
                mode,
                owner: Some(meta.uid()),
                group: Some(meta.gid()),
            })
        }

        /// Those of a file that holds the same data and lies in directories of its own: the directories of `path`
        /// also say who may read it.
        pub(crate) fn of_reachable_file(path: &Path) -> io::Result<Self> {
            let mut rights = Self::of_file(path)?;
            for dir in path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
                let meta = std::fs::metadata(dir)?;
                let (others, group) = (meta.mode() & 0o001 != 0, meta.mode() & 0o010 != 0);
                let same_group = rights.group == Some(meta.gid());
                if !others {
                    rights.mode &= 0o770;
                }
                if !(if same_group { group } else { others }) {
                    rights.mode &= 0o707;
                }
            }
            Ok(rights)
        }

        /// Those of a file in this directory, where nothing else says who may read the data.
        pub(crate) fn of_file_in(dir: &Metadata) -> Self {
            Self {
                mode: dir.mode() & 0o666,
                owner: Some(dir.uid()),
                group: Some(dir.gid()),
            }
        }

        /// Those of a directory that stands for this one. Others never get the right to write.
        pub(crate) fn of_directory(like: &Metadata) -> Self {
            Self {
                mode: like.mode() & 0o775 | 0o700,
                owner: Some(like.uid()),
                group: Some(like.gid()),
            }
        }

        /// Gives them to a file or directory of ours, as far as we can, and never more than them.
        pub(crate) fn give(&self, to: &File) -> io::Result<()> {
            // The directory may pass on a list of users who may read, which the Parquet file does not have.
            #[cfg(target_os = "linux")]
            let _ = rustix::fs::fremovexattr(to, ACCESS_LIST);
            let before = to.metadata()?;
            let owner = self
                .owner
                .filter(|owner| *owner != before.uid() && me() == Some(0));
            let group = self.group.filter(|group| *group != before.gid());
            if owner.is_some() || group.is_some() {
                // Only root can give a file away, and others only to their own groups.
                let _ = fchown(to, owner, group);
            }
            let now = to.metadata()?;
            let mut mode = self.mode;
            if self.group.is_some_and(|group| group != now.gid()) {
                // Members of the group that it has get what everybody gets.
                mode &= !0o070 | (mode & 0o007) << 3;
            }
            if self.owner.is_some_and(|owner| owner != now.uid()) {
                // We have read the data: the owner's bits are ours now.
                mode |= 0o600;
            }
            if now.mode() & 0o777 != mode {
                // Where a file system has no modes, the Parquet file has none either.
                let _ = to.set_permissions(std::fs::Permissions::from_mode(mode));
            }
            Ok(())
        }
    }

    fn has_access_list(path: &Path) -> bool {
        #[cfg(target_os = "linux")]
        {
            let mut list = [0_u8; 4096];
            match rustix::fs::getxattr(path, ACCESS_LIST, &mut list[..]) {
                Ok(length) => length > 0,
                Err(error) => error == rustix::io::Errno::RANGE,
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = path;
            false
        }
    }

    /// The user that this process acts as: the owner of the files that it makes.
    pub(crate) fn me() -> Option<u32> {
        static ME: OnceLock<Option<u32>> = OnceLock::new();
        *ME.get_or_init(|| {
            let ours = tempfile::tempfile().and_then(|file| file.metadata());
            let ours = ours.or_else(|_| std::fs::metadata("/proc/self"));
            ours.ok().map(|meta| meta.uid())
        })
    }

    /// Whether nobody but this user and root can change what lies in a directory.
    pub(crate) fn only_we_write(dir: &Metadata) -> bool {
        is_mine_or_roots(dir) && dir.mode() & (GROUP_WRITES | OTHERS_WRITE) == 0
    }

    /// Whether both lie on one file system.
    pub(crate) fn on_one_device(one: &Metadata, other: &Metadata) -> bool {
        one.dev() == other.dev()
    }

    fn is_mine_or_roots(meta: &Metadata) -> bool {
        meta.uid() == 0 || me() == Some(meta.uid())
    }

    /// Whether the group is one that only its user is in, as many systems make for each user.
    fn is_private_group(meta: &Metadata) -> bool {
        meta.gid() == meta.uid()
    }

    /// Why what lies in `dir` is not believed about the data in `like` and about a file of this owner, if so.
    pub(crate) fn distrust(
        dir: &Metadata,
        like: Option<&Metadata>,
        parquet: Option<&Metadata>,
    ) -> Option<String> {
        let open_to_all = |meta: &Metadata| meta.mode() & (OTHERS_WRITE | STICKY) == OTHERS_WRITE;
        if like.is_some_and(open_to_all) {
            return None; // whoever writes here can replace the Parquet file
        }
        let shared = like.is_some_and(|like| like.mode() & GROUP_WRITES != 0 && like.gid() == dir.gid());
        let owners = [like, parquet];
        let owned = owners.into_iter().flatten().any(|meta| meta.uid() == dir.uid());
        if !is_mine_or_roots(dir) && !owned && !shared {
            return Some(format!(
                "it belongs to another user (id {}), who does not own the Parquet file",
                dir.uid()
            ));
        }
        if dir.mode() & OTHERS_WRITE != 0 {
            return Some("every user can write it".to_owned());
        }
        if dir.mode() & GROUP_WRITES != 0 && !shared && !is_private_group(dir) {
            return Some(format!(
                "the members of group {} can write it, but not the directory of the Parquet file",
                dir.gid()
            ));
        }
        None
    }

    /// Why somebody else could change what lies in `path`, which has no links in it, if so.
    pub(crate) fn others_can_change(path: &Path) -> io::Result<Option<String>> {
        for (level, dir) in path.ancestors().enumerate() {
            let meta = std::fs::symlink_metadata(dir)?;
            let why = if !is_mine_or_roots(&meta) {
                format!("belongs to another user (id {})", meta.uid())
            } else if level == 0 && me() != Some(meta.uid()) {
                "belongs to root".to_owned()
            } else if meta.mode() & STICKY != 0 && level > 0 {
                continue; // others cannot rename what is ours there
            } else if meta.mode() & OTHERS_WRITE != 0 {
                "can be written by every user".to_owned()
            } else if meta.mode() & GROUP_WRITES != 0 && !is_private_group(&meta) {
                format!("can be written by the members of group {}", meta.gid())
            } else {
                continue;
            };
            return Ok(Some(format!("{} {why}", dir.display())));
        }
        Ok(None)
    }
}

#[cfg(unix)]
pub(crate) use unix::{distrust, me, on_one_device, only_we_write, others_can_change};

/// Elsewhere the rights of a new file are those that its directory passes on.
#[cfg(not(unix))]
mod elsewhere {
    use super::*;

    impl Rights {
        pub(crate) fn of_file(_: &Path) -> io::Result<Self> {
            Ok(Self::PRIVATE)
        }

        pub(crate) fn of_reachable_file(_: &Path) -> io::Result<Self> {
            Ok(Self::PRIVATE)
        }

        pub(crate) fn of_file_in(_: &Metadata) -> Self {
            Self::PRIVATE
        }

        pub(crate) fn of_directory(_: &Metadata) -> Self {
            Self::PRIVATE
        }

        pub(crate) fn give(&self, _: &File) -> io::Result<()> {
            Ok(())
        }
    }

    pub(crate) fn distrust(_: &Metadata, _: Option<&Metadata>, _: Option<&Metadata>) -> Option<String> {
        None
    }

    pub(crate) fn only_we_write(_: &Metadata) -> bool {
        true
    }

    pub(crate) fn on_one_device(_: &Metadata, _: &Metadata) -> bool {
        true
    }
}

#[cfg(not(unix))]
pub(crate) use elsewhere::{distrust, on_one_device, only_we_write};
