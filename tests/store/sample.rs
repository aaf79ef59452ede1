//! Small indexes and the homes that tests keep them in.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion_hnsw::format::{SidecarMeta, SourceIdentity};
use datafusion_hnsw::hnsw::{HnswBuilder, HnswConfig, HnswIndex, VectorMetric};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::sidecar::{Location, SidecarOptions, SidecarStore};
use object_store::ObjectStore;
use object_store::path::Path;

/// An index of `rows` vectors.
pub fn index(metric: VectorMetric, rows: usize) -> Arc<HnswIndex> {
    let mut builder = HnswBuilder::new(4, metric, HnswConfig::default());
    for row in 0..rows {
        let x = row as f32;
        let vector = vec![1.0 + x, (x * 0.7).sin(), (x * 1.3).cos(), x * x % 17.0];
        builder
            .insert(RowId::new(row as u64), vector)
            .expect("a vector of four numbers");
    }
    Arc::new(builder.build().expect("a small index"))
}

/// What identifies a Parquet file of this name with this many rows.
pub fn identity(file_name: &str, rows: u64) -> SourceIdentity {
    SourceIdentity {
        file_name: file_name.to_owned(),
        size: 1000 + rows,
        footer_hash: format!("{rows:032x}"),
        rows,
        e_tag: None,
    }
}

/// What a sidecar says of itself.
pub fn meta(column: &str, source: SourceIdentity) -> SidecarMeta {
    SidecarMeta {
        index_name: "t_idx".to_owned(),
        table_column: column.to_owned(),
        item_type: "Float32".to_owned(),
        sources: vec![source],
        created_by: "tests".to_owned(),
        properties: BTreeMap::new(),
    }
}

/// A place for a Parquet file and its sidecars, with a cache directory of its own.
pub struct Home {
    pub name: &'static str,
    /// Where the file of this name is.
    pub place: Box<dyn Fn(&str) -> Location + Send + Sync>,
    pub cache: TempDir,
    /// Whether a second builder is noticed when it begins, or when it publishes.
    pub locks: bool,
    _dir: Option<TempDir>,
}

impl Home {
    /// A directory of the local file system.
    pub fn local() -> Self {
        let dir = temp();
        let root = dir.path().to_owned();
        let place = move |file: &str| Location::local(root.join(file)).expect("a plain path");
        Self {
            name: "local",
            place: Box::new(place),
            cache: temp(),
            locks: true,
            _dir: Some(dir),
        }
    }

    /// A directory of an object store.
    pub fn remote(name: &'static str, url: &'static str, store: Arc<dyn ObjectStore>) -> Self {
        let place = move |file: &str| {
            Location::remote(Arc::clone(&store), url, Path::from(format!("some/table/{file}")))
        };
        Self {
            name,
            place: Box::new(place),
            cache: temp(),
            locks: false,
            _dir: None,
        }
    }

    /// Settings that let tests see changes at once.
    pub fn options(&self) -> SidecarOptions {
        let mut options = SidecarOptions::default();
        options.cache_dir = Some(self.cache.path().to_owned());
        options.listing_ttl = Duration::ZERO;
        options.retry_after = Duration::ZERO;
        options.timeout = Duration::from_secs(5);
        options.fetch_part = 1000;
        options
    }

    /// A store as a new process would have it: the same directories, nothing known.
    pub fn store(&self) -> Arc<SidecarStore> {
        SidecarStore::new(self.options())
    }
}

/// A directory that goes when it is dropped, and with it the sidecars of files in it, which lie next to it.
pub struct TempDir {
    _around: tempfile::TempDir,
    path: PathBuf,
}

impl TempDir {
    pub fn path(&self) -> &FsPath {
        &self.path
    }
}

pub fn temp() -> TempDir {
    let around = tempfile::tempdir().expect("a temporary directory");
    let path = around.path().join("t");
    std::fs::create_dir(&path).expect("room");
    // As the directory is its owner's alone, the one around it may be entered by everybody.
    #[cfg(unix)]
    for (dir, mode) in [(&path, 0o700), (&around.path().to_owned(), 0o755)] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).expect("ours");
    }
    TempDir {
        _around: around,
        path,
    }
}

/// Where the sidecars of the files in a directory are.
pub fn sidecars(dir: &FsPath) -> PathBuf {
    let name = dir.file_name().expect("it has one").to_string_lossy();
    dir.with_file_name(format!(".{name}.hnsw"))
}

/// The names in a directory, hidden ones included.
pub fn names(dir: impl Into<PathBuf>) -> Vec<String> {
    let entries = std::fs::read_dir(dir.into()).expect("a directory");
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
