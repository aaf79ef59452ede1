//! Parquet files and tables of them, as sessions see them.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, FixedSizeListBuilder, Float32Builder, Int64Array, RecordBatch};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_hnsw::HnswSessionExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::sample::{TempDir, temp};
use crate::wrapped::passing_on;

pub const DIM: i32 = 8;

/// The number on this axis of the vector of this row.
pub fn number(row: i64, axis: i32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    let number = ((row * 37 + i64::from(axis) * 11) as f64 * 0.7).sin() as f32;
    number
}

/// A Parquet file of these rows in which nothing but the rows differs: no statistics, no compression.
pub fn parquet(rows: impl IntoIterator<Item = i64>) -> Vec<u8> {
    let vector = |row| (0..DIM).map(|axis| number(row, axis)).collect();
    parquet_of(rows.into_iter().map(|row| (row, Some(vector(row)))))
}

/// A Parquet file of these rows and their vectors, written as [`parquet`] does.
pub fn parquet_of(rows: impl IntoIterator<Item = (i64, Option<Vec<f32>>)>) -> Vec<u8> {
    let mut vectors = FixedSizeListBuilder::new(Float32Builder::new(), DIM);
    let mut ids = vec![];
    for (id, vector) in rows {
        ids.push(id);
        vectors
            .values()
            .append_slice(vector.as_ref().map_or(&[0.0; DIM as usize], |v| v.as_slice()));
        vectors.append(vector.is_some());
    }
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from(ids))),
        ("v", Arc::new(vectors.finish())),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a schema");
    writer.write(&batch).expect("memory");
    writer.close().expect("memory");
    bytes
}

/// A directory of Parquet files, and how sessions see it.
pub struct Table {
    pub store: Arc<dyn ObjectStore>,
    url: String,
    root: ObjectStoreUrl,
    pub cache: TempDir,
    dir: Option<tempfile::TempDir>,
    is_wrapped: bool,
}

impl Table {
    pub fn local() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("t")).expect("room");
        let store = LocalFileSystem::new_with_prefix(dir.path()).expect("a directory");
        let url = format!("file://{}/t/", dir.path().display());
        Self {
            store: Arc::new(store),
            root: ObjectStoreUrl::parse("file:///").expect("a URL"),
            url,
            cache: temp(),
            dir: Some(dir),
            is_wrapped: false,
        }
    }

    /// A local table in sessions that wrap the local file system, as DataFusion's command line does.
    pub fn wrapped() -> Self {
        Self {
            is_wrapped: true,
            ..Self::local()
        }
    }

    pub fn s3(store: Arc<dyn ObjectStore>) -> Self {
        let root = ObjectStoreUrl::parse("s3://bucket").expect("a URL");
        Self {
            store,
            url: "s3://bucket/t/".to_owned(),
            root,
            cache: temp(),
            dir: None,
            is_wrapped: false,
        }
    }

    fn scheme(&self) -> &str {
        AsRef::<str>::as_ref(&self.root)
            .split(':')
            .next()
            .unwrap_or_default()
    }

    pub fn place(&self, name: &str) -> Path {
        Path::from(format!("t/{name}"))
    }

    /// A sidecar of one of its files.
    pub fn sidecar(&self, name: &str) -> Path {
        Path::from(format!(".t.hnsw/{name}"))
    }

    /// A file of a local table.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir
            .as_ref()
            .expect("a local table")
            .path()
            .join("t")
            .join(name)
    }

    pub async fn put(&self, name: &str, bytes: Vec<u8>) {
        self.store
            .put(&self.place(name), bytes.into())
            .await
            .expect("room");
    }

    /// A session that has never seen the files before.
    pub async fn session(&self) -> SessionContext {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        self.prepare(&ctx).await;
        ctx
    }

    /// Registers the extension and the table.
    pub async fn prepare(&self, ctx: &SessionContext) {
        datafusion_hnsw::register(ctx).expect("registered");
        if self.is_wrapped {
            wrap_local(ctx);
        }
        if self.scheme() != "file" {
            ctx.register_object_store(self.root.as_ref(), Arc::clone(&self.store));
        }
        let cache = self.cache.path().display();
        run(ctx, &format!("SET hnsw.cache_dir = '{cache}'")).await;
        run(
            ctx,
            &format!(
                "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'",
                self.url
            ),
        )
        .await;
    }

    /// The file that holds the bytes of a sidecar of this name: itself, or the only copy of a remote one.
    pub fn sidecar_file(&self, name: &str) -> std::path::PathBuf {
        if let Some(dir) = &self.dir {
            return dir.path().join(".t.hnsw").join(name);
        }
        let copies = self.cache.path().join("sidecars-1");
        let mut copies = std::fs::read_dir(copies).expect("a cache directory");
        copies.next().expect("a copy").expect("readable").path()
    }

    /// The ten rows nearest to a vector, with and without an index; and how the index was used.
    pub async fn answers(&self) -> String {
        const QUERY: &str = "SELECT id, array_distance(v, [0.1,0.2,0.3,0.4,0.5,0.4,0.3,0.2]) AS d FROM t ORDER BY d, id LIMIT 10";
        let ctx = self.session().await;
        run(&ctx, "SET hnsw.ef_search = 1000").await;
        let plan = run(&ctx, &format!("EXPLAIN {QUERY}")).await;
        let with = run(&ctx, QUERY).await;
        let off = self.session().await;
        run(&off, "SET hnsw.mode = 'off'").await;
        assert_eq!(with, run(&off, QUERY).await, "{plan}");
        let Some(at) = plan.find("files=[") else {
            return "not used".to_owned();
        };
        plan[at + 7..].split(']').next().unwrap_or_default().to_owned()
    }

    pub async fn create_index(&self) {
        let ctx = self.session().await;
        run(&ctx, "CREATE INDEX i ON t USING hnsw (v) WITH (metric = 'l2')").await;
    }
}

/// Puts a wrapped local file system in the place of the bare one.
pub fn wrap_local(ctx: &SessionContext) {
    let root = ObjectStoreUrl::parse("file:///").expect("a URL");
    ctx.register_object_store(root.as_ref(), passing_on(Arc::new(LocalFileSystem::new())));
}

pub async fn run(ctx: &SessionContext, sql: &str) -> String {
    let answer = async { ctx.hnsw_sql(sql).await?.collect().await };
    let batches = answer.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pretty_format_batches(&batches).expect("text").to_string()
}
