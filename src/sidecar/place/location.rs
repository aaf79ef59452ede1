//! Where the sidecars of a Parquet file live: in a directory next to that of its table, beside it, or under another
//! directory or store.
//!
//! Some readers take every file below a table's directory for Parquet, whatever its name: polars does when it is
//! given the directory, and DuckDB for `dir/**`. So sidecars lie outside of it, in a hidden directory next to it. That
//! place follows from the file's path alone, so the same file has the same sidecars in every table that it is part of:
//!
//! ```text
//! data/docs/a.parquet          data/.docs.hnsw/a.parquet.<column>.<metric>.hnsw
//! data/docs/p=1/q=2/a.parquet  data/.docs.hnsw/p=1/q=2/a.parquet.<column>.<metric>.hnsw
//! ```
//!
//! The table's directory is taken to be the nearest one that is not a Hive partition (`key=value`). Where nothing can
//! lie next to it (it is the root of a file system or of a bucket) or may be written there, sidecars lie in `_hnsw`
//! beside the file, as all of them did in earlier versions: that is still read.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use super::home::{Home, LocalDir, RemoteDir, SUBDIRECTORY, SidecarDir, child, mirrored, sibling_of_table};
use super::name::SidecarName;
use crate::hnsw::VectorMetric;
use crate::sidecar::error::StoreError;

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
    /// Where its sidecars are, if not where they are by default.
    pub sidecar_dir: Option<SidecarDir>,
}

impl Location {
    /// A file of the local file system, with its sidecars where they are by default.
    ///
    /// # Errors
    ///
    /// If the path is not one an object store can name.
    pub fn local(parquet: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let local = parquet.into();
        let bad = |error: &dyn fmt::Display| StoreError::BadName(format!("{}: {error}", local.display()));
        let absolute = std::path::absolute(&local).map_err(|error| bad(&error))?;
        let parquet = Path::from_absolute_path(&absolute).map_err(|error| bad(&error))?;
        Ok(Self {
            store: Arc::new(object_store::memory::InMemory::new()), // never asked: the file is local
            store_url: "file:///".to_owned(),
            parquet,
            local: Some(absolute),
            sidecar_dir: None,
        })
    }

    /// A file of an object store, with its sidecars where they are by default.
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

    /// The full address that a new sidecar for this column and metric gets where nothing stands in the way, as
    /// messages show it.
    pub fn sidecar_url(&self, column: &str, metric: VectorMetric) -> String {
        self.homes()[0].address(&self.sidecar_name(column, metric))
    }

    /// The directories that may hold sidecars of this file. A build writes to the first that it can write, and a
    /// lookup asks them in this order.
    ///
    /// No other function decides where sidecars are.
    pub(crate) fn homes(&self) -> Vec<Home> {
        if let Some(dir) = &self.sidecar_dir {
            return vec![mirrored(
                dir,
                &self.store_url,
                &self.parquet,
                self.local.as_deref(),
            )];
        }
        let beside = match &self.local {
            Some(parquet) => Home::Local(LocalDir::beside(parquet)),
            None => {
                Home::Remote(self.remote_dir(child(&self.parquet.parent().unwrap_or_default(), SUBDIRECTORY)))
            }
        };
        let sibling = match &self.local {
            Some(parquet) => LocalDir::sibling(parquet).map(Home::Local),
            None => sibling_of_table(&self.parquet).map(|dir| Home::Remote(self.remote_dir(dir))),
        };
        sibling.into_iter().chain([beside]).collect()
    }

    fn remote_dir(&self, dir: Path) -> RemoteDir {
        RemoteDir {
            store: Arc::clone(&self.store),
            store_url: self.store_url.clone(),
            dir,
        }
    }

    /// Another file of the same store and settings.
    pub(crate) fn of_other(&self, parquet: Path, local: Option<PathBuf>) -> Self {
        Self {
            parquet,
            local,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<dyn ObjectStore> {
        Arc::new(object_store::memory::InMemory::new())
    }

    fn places(location: &Location) -> Vec<String> {
        let name = location.sidecar_name("v.x", VectorMetric::Euclidean);
        location.homes().iter().map(|home| home.address(&name)).collect()
    }

    #[test]
    fn sidecars_lie_next_to_the_directory_of_the_table_or_beside_their_file() {
        let local = |path: &str| places(&Location::local(path).expect("a plain path"));
        let remote = |path: &str| places(&Location::remote(memory(), "s3://bucket", Path::from(path)));
        let name = "a.parquet.v%2Ex.l2.hnsw";
        for (path, sibling, beside) in [
            ("data/t/a.parquet", "data/.t.hnsw", "data/t/_hnsw"),
            (
                "data/t/p=1/q=x/a.parquet",
                "data/.t.hnsw/p=1/q=x",
                "data/t/p=1/q=x/_hnsw",
            ),
            // Only the partitions above the file are the table's; and these names are none.
            ("data/p=1/t/a.parquet", "data/p=1/.t.hnsw", "data/p=1/t/_hnsw"),
            ("data/=1/a.parquet", "data/.=1.hnsw", "data/=1/_hnsw"),
            ("data/2024/a.parquet", "data/.2024.hnsw", "data/2024/_hnsw"),
            ("t/a.parquet", ".t.hnsw", "t/_hnsw"),
        ] {
            let expected = |root: &str| {
                [sibling, beside]
                    .map(|dir| format!("{root}/{dir}/{name}"))
                    .to_vec()
            };
            assert_eq!(local(&format!("/{path}")), expected(""));
            assert_eq!(remote(path), expected("s3://bucket"));
        }
        assert_eq!(local("/a.parquet"), [format!("/_hnsw/{name}")]);
        assert_eq!(remote("a.parquet"), [format!("s3://bucket/_hnsw/{name}")]);
        assert_eq!(remote("p=1/a.parquet"), [format!("s3://bucket/p=1/_hnsw/{name}")]);
    }

    #[test]
    fn the_longest_name_of_a_directory_has_a_place_too() {
        let table = |last: char| format!("/data/{}{last}/a.parquet", "t".repeat(254));
        let [one, two] = ['1', '2'].map(|last| places(&Location::local(table(last)).expect("a plain path")));
        assert_ne!(one[0], two[0]);
        for part in one[0].split('/') {
            assert!(part.len() <= 255, "{part}");
        }
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
