//! A directory that holds sidecars: where it is, what of it builds make, and whose rights that gets.

use std::ffi::OsString;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use super::name::{SidecarName, shortened};
use crate::sidecar::redact::redact;

/// A directory for the sidecars of files that lie elsewhere (`hnsw.sidecar_dir`).
///
/// It mirrors their places, so that files of the same name do not meet: the sidecar of `s3://bucket/t/a.parquet`
/// is `<dir>/s3/bucket/t/a.parquet.<column>.<metric>.hnsw`, that of `/data/a.parquet` is
/// `<dir>/file/data/a.parquet.<column>.<metric>.hnsw`.
#[derive(Clone, Debug)]
pub struct SidecarDir {
    /// The store that holds the directory.
    pub store: Arc<dyn ObjectStore>,
    /// The URL of that store.
    pub store_url: String,
    /// The directory in the store.
    pub prefix: Path,
    /// The directory on the local file system, if that is where it is.
    pub local: Option<PathBuf>,
}

/// A directory that holds sidecars, local or in a store.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    Local(LocalDir),
    Remote(RemoteDir),
}

/// A directory of the local file system.
#[derive(Clone, Debug)]
pub(crate) struct LocalDir {
    /// A directory that builds do not make, except for one that the user named.
    pub(crate) base: PathBuf,
    /// The directories below it, each in the one before it, which builds make.
    pub(crate) below: Vec<Below>,
    /// The Parquet file, if it is local: nobody may read its sidecars who may not read it.
    pub(crate) parquet: Option<PathBuf>,
    /// How it was chosen.
    pub(crate) choice: Choice,
}

/// A directory that builds make.
#[derive(Clone, Debug)]
pub(crate) struct Below {
    pub(crate) name: OsString,
    /// The directory of data whose rights it gets, or else those of the one that it is in.
    pub(crate) like: Option<PathBuf>,
}

/// How the place of sidecars was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Next to the directory of the table.
    Sibling,
    /// Beside the file.
    Beside,
    /// By the user.
    Named,
}

/// A directory in an object store.
#[derive(Clone, Debug)]
pub(crate) struct RemoteDir {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) store_url: String,
    pub(crate) dir: Path,
}

/// The directory beside a Parquet file that holds its sidecars, if they do not lie next to the table's.
///
/// They cannot lie among the Parquet files: DataFusion 55 takes every object of a directory for one when the table's
/// schema is given or its store is not the local file system. It does not look into subdirectories, and Spark, Hive
/// and PyArrow pass over names that begin with an underscore.
pub(crate) const SUBDIRECTORY: &str = "_hnsw";

/// File systems allow this many bytes for a name.
const LONGEST: usize = 255;

impl Home {
    /// The address of a sidecar in this directory, as messages show it.
    pub(crate) fn address(&self, name: &SidecarName) -> String {
        match self {
            Home::Local(dir) => dir.path().join(name.to_string()).display().to_string(),
            Home::Remote(remote) => remote.address(&remote.path(name)),
        }
    }
}

impl LocalDir {
    /// The directory next to that of the table; none if there is no such place.
    pub(crate) fn sibling(parquet: &FsPath) -> Option<Self> {
        let mut partitions = vec![];
        let mut table = parquet.parent()?;
        while is_partition(&table.file_name()?.to_string_lossy()) {
            partitions.push(table);
            table = table.parent()?;
        }
        let name = sibling_name(&table.file_name()?.to_string_lossy());
        let below = |name: OsString, like: &FsPath| Below {
            name,
            like: Some(like.to_owned()),
        };
        let mut dirs = vec![below(name.into(), table)];
        for partition in partitions.into_iter().rev() {
            dirs.push(below(partition.file_name()?.to_owned(), partition));
        }
        Some(Self {
            base: table.parent()?.to_owned(),
            below: dirs,
            parquet: Some(parquet.to_owned()),
            choice: Choice::Sibling,
        })
    }

    /// The directory beside the file.
    pub(crate) fn beside(parquet: &FsPath) -> Self {
        let base = parquet.parent().map(FsPath::to_path_buf).unwrap_or_default();
        Self {
            below: vec![Below {
                name: SUBDIRECTORY.into(),
                like: Some(base.clone()),
            }],
            base,
            parquet: Some(parquet.to_owned()),
            choice: Choice::Beside,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.below
            .iter()
            .fold(self.base.clone(), |at, below| at.join(&below.name))
    }

    /// The directory of a table whose sidecars lie next to it, and the directory of those.
    pub(crate) fn table(&self) -> Option<(&FsPath, PathBuf)> {
        let top = self.below.first().filter(|_| self.choice == Choice::Sibling)?;
        Some((top.like.as_deref()?, self.base.join(&top.name)))
    }
}

impl RemoteDir {
    pub(crate) fn path(&self, name: &SidecarName) -> Path {
        child(&self.dir, &name.to_string())
    }

    pub(crate) fn address(&self, path: &Path) -> String {
        redact(&format!("{}/{path}", self.store_url.trim_end_matches('/')))
    }
}

/// The directory in a store for sidecars of this file, next to that of its table; none if there is no such place.
pub(crate) fn sibling_of_table(parquet: &Path) -> Option<Path> {
    let (mut table, parquet_dir) = table_of(parquet)?;
    let name = table.pop()?;
    table.push(sibling_name(&name));
    let partitions = parquet_dir.into_iter().skip(table.len());
    let parts: Vec<String> = table.iter().cloned().chain(partitions).collect();
    Path::parse(parts.join("/")).ok()
}

/// The directory of a file's table, and the one next to it for the sidecars of the table.
pub(crate) fn table_and_sibling(parquet: &Path) -> Option<(Path, Path)> {
    let (table, _) = table_of(parquet)?;
    let (name, above) = table.split_last()?;
    let mut sibling = above.to_vec();
    sibling.push(sibling_name(name));
    Some((
        Path::parse(table.join("/")).ok()?,
        Path::parse(sibling.join("/")).ok()?,
    ))
}

/// The parts of the directory of a file's table, and those of the file's own directory.
fn table_of(parquet: &Path) -> Option<(Vec<String>, Vec<String>)> {
    let mut dir: Vec<String> = parquet.parts().map(|part| part.as_ref().to_owned()).collect();
    dir.pop()?;
    let mut table = dir.clone();
    while table.last().is_some_and(|name| is_partition(name)) {
        table.pop();
    }
    Some((table, dir))
}

/// Whether this is the name of a directory of a Hive partition.
fn is_partition(name: &str) -> bool {
    name.find('=').is_some_and(|at| at > 0)
}

/// The name of the directory for the sidecars of the table in a directory of this name.
fn sibling_name(table: &str) -> String {
    format!(".{}.hnsw", shortened(table, LONGEST - ".".len() - ".hnsw".len()))
}

/// The directory for the sidecars of a file under a directory that the user named.
pub(crate) fn mirrored(dir: &SidecarDir, store_url: &str, parquet: &Path, local: Option<&FsPath>) -> Home {
    let parts = mirrored_parts(store_url, parquet);
    let Some(base) = &dir.local else {
        return Home::Remote(RemoteDir {
            store: Arc::clone(&dir.store),
            store_url: dir.store_url.clone(),
            dir: parts.iter().fold(dir.prefix.clone(), |at, part| child(&at, part)),
        });
    };
    let below = parts.into_iter().map(|name| Below {
        name: name.into(),
        like: None,
    });
    Home::Local(LocalDir {
        base: base.clone(),
        below: below.collect(),
        parquet: local.map(FsPath::to_path_buf),
        choice: Choice::Named,
    })
}

/// `dir/name`, taking the name as it stands ([`Path::join`] would encode its `%` again).
pub(crate) fn child(dir: &Path, name: &str) -> Path {
    let text = if dir.as_ref().is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    };
    Path::parse(text).unwrap_or_else(|_| dir.clone().join(name))
}

/// The path under a sidecar directory that stands for the directory of a Parquet file.
fn mirrored_parts(store_url: &str, parquet: &Path) -> Vec<String> {
    let (scheme, host) = store_url.split_once("://").unwrap_or(("file", store_url));
    let mut parts = vec![safe(scheme)];
    parts.extend(host.split('/').filter(|part| !part.is_empty()).map(safe));
    let mut path: Vec<String> = parquet.parts().map(|part| safe(part.as_ref())).collect();
    path.pop();
    parts.extend(path);
    parts
}

/// A part of a path that cannot climb out of its directory.
fn safe(part: &str) -> String {
    match part {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => part.replace(['\\', '\0'], "_"),
    }
}
