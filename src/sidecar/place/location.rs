//! Where the sidecars of a Parquet file live: beside it, or under another directory or store.

use std::fmt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use super::name::SidecarName;
use crate::hnsw::VectorMetric;
use crate::sidecar::error::StoreError;
use crate::sidecar::redact::redact;

/// A Parquet file, and where its sidecars are.
#[derive(Clone, Debug)]
pub struct Location {
    /// The store that holds the Parquet file.
    pub store: Arc<dyn ObjectStore>,
    /// The URL of that store: `file:///`, `s3://bucket`.
    pub store_url: String,
    /// The Parquet file in the store.
    pub parquet: Path,
    /// The Parquet file on the local file system, if that is where it is.
    pub local: Option<PathBuf>,
    /// Where its sidecars are, if not beside it.
    pub sidecar_dir: Option<SidecarDir>,
}

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
    Local(PathBuf),
    Remote(RemoteDir),
}

/// A directory in an object store.
#[derive(Clone, Debug)]
pub(crate) struct RemoteDir {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) store_url: String,
    pub(crate) dir: Path,
}

/// The directory beside a Parquet file that holds its sidecars.
///
/// They cannot lie among the Parquet files: DataFusion 55 takes every object of a directory for one when the table's
/// schema is given or its store is not the local file system. It does not look into subdirectories, and Spark, Hive
/// and PyArrow pass over names that begin with an underscore.
pub(crate) const SUBDIRECTORY: &str = "_hnsw";

impl Location {
    /// A file of the local file system, with its sidecars beside it.
    ///
    /// # Errors
    ///
    /// If the path is not one an object store can name.
    pub fn local(parquet: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let local = parquet.into();
        let bad = |error: &dyn fmt::Display| StoreError::BadName(format!("{}: {error}", local.display()));
        let absolute = std::path::absolute(&local).map_err(|error| bad(&error))?;
        let parquet = Path::from_absolute_path(absolute).map_err(|error| bad(&error))?;
        Ok(Self {
            store: Arc::new(object_store::memory::InMemory::new()), // never asked: the file is local
            store_url: "file:///".to_owned(),
            parquet,
            local: Some(local),
            sidecar_dir: None,
        })
    }

    /// A file of an object store, with its sidecars beside it.
    pub fn remote(store: Arc<dyn ObjectStore>, store_url: impl Into<String>, parquet: Path) -> Self {
        Self {
            store,
            store_url: store_url.into(),
            parquet,
            local: None,
            sidecar_dir: None,
        }
    }

    /// The same file with its sidecars under another directory.
    pub fn with_sidecar_dir(mut self, dir: Option<SidecarDir>) -> Self {
        self.sidecar_dir = dir;
        self
    }

    /// The name of the sidecar for this column and metric.
    pub fn sidecar_name(&self, column: &str, metric: VectorMetric) -> SidecarName {
        SidecarName::new(self.parquet.filename().unwrap_or_default(), column, metric)
    }

    /// The full address of the sidecar for this column and metric, as messages show it.
    pub fn sidecar_url(&self, column: &str, metric: VectorMetric) -> String {
        self.home().address(&self.sidecar_name(column, metric))
    }

    /// The directory that holds the sidecars of this file.
    pub(crate) fn home(&self) -> Home {
        if let Some(dir) = &self.sidecar_dir {
            let mirrored: Vec<String> = mirrored_parts(&self.store_url, &self.parquet);
            return match &dir.local {
                Some(local) => Home::Local(mirrored.iter().fold(local.clone(), |at, part| at.join(part))),
                None => Home::Remote(RemoteDir {
                    store: Arc::clone(&dir.store),
                    store_url: dir.store_url.clone(),
                    dir: mirrored
                        .iter()
                        .fold(dir.prefix.clone(), |at, part| child(&at, part)),
                }),
            };
        }
        match &self.local {
            Some(parquet) => Home::Local(
                parquet
                    .parent()
                    .map(FsPath::to_path_buf)
                    .unwrap_or_default()
                    .join(SUBDIRECTORY),
            ),
            None => Home::Remote(RemoteDir {
                store: Arc::clone(&self.store),
                store_url: self.store_url.clone(),
                dir: child(&self.parquet.parent().unwrap_or_default(), SUBDIRECTORY),
            }),
        }
    }
}

impl Home {
    /// The address of a sidecar in this directory, as messages show it.
    pub(crate) fn address(&self, name: &SidecarName) -> String {
        match self {
            Home::Local(dir) => dir.join(name.to_string()).display().to_string(),
            Home::Remote(remote) => remote.address(&remote.path(name)),
        }
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

/// `dir/name`, taking the name as it stands ([`Path::join`] would encode its `%` again).
fn child(dir: &Path, name: &str) -> Path {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<dyn ObjectStore> {
        Arc::new(object_store::memory::InMemory::new())
    }

    #[test]
    fn sidecars_lie_beside_their_file_by_default() {
        let local = Location::local("/data/t/a.parquet").expect("a plain path");
        assert_eq!(
            local.sidecar_url("v.x", VectorMetric::Cosine),
            "/data/t/_hnsw/a.parquet.v%2Ex.cosine.hnsw"
        );
        let remote = Location::remote(memory(), "s3://bucket", Path::from("t/a.parquet"));
        assert_eq!(
            remote.sidecar_url("v.x", VectorMetric::Euclidean),
            "s3://bucket/t/_hnsw/a.parquet.v%2Ex.l2.hnsw"
        );
    }

    #[test]
    fn a_sidecar_directory_mirrors_the_places_of_the_files() {
        let dir = |local| SidecarDir {
            store: memory(),
            store_url: "s3://indexes".to_owned(),
            prefix: Path::from("hnsw"),
            local,
        };
        let one = Location::remote(memory(), "s3://bucket", Path::from("t/p=1/a.parquet"));
        let two = Location::local("/t/p=1/a.parquet").expect("a plain path");
        let url = |location: &Location, local| {
            let location = location.clone().with_sidecar_dir(Some(dir(local)));
            location.sidecar_url("v", VectorMetric::DotProduct)
        };
        assert_eq!(
            url(&one, None),
            "s3://indexes/hnsw/s3/bucket/t/p=1/a.parquet.v.ip.hnsw"
        );
        assert_eq!(
            url(&two, None),
            "s3://indexes/hnsw/file/t/p=1/a.parquet.v.ip.hnsw"
        );
        assert_eq!(
            url(&one, Some("/idx".into())),
            "/idx/s3/bucket/t/p=1/a.parquet.v.ip.hnsw"
        );
    }
}
