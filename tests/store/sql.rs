//! The whole life of an index through SQL where files change under it: on local disk and in a real S3 server.

use std::sync::Arc;
use std::time::Duration;

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
use tempfile::TempDir;

use crate::sample::temp;
use crate::server::{Fault, Request, S3};

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
    dir: Option<TempDir>,
}

impl Table {
    pub fn local() -> Self {
        let dir = temp();
        let store = LocalFileSystem::new_with_prefix(dir.path()).expect("a directory");
        let url = format!("file://{}/", dir.path().display());
        Self {
            store: Arc::new(store),
            root: ObjectStoreUrl::parse("file:///").expect("a URL"),
            url,
            cache: temp(),
            dir: Some(dir),
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
        }
    }

    fn scheme(&self) -> &str {
        AsRef::<str>::as_ref(&self.root)
            .split(':')
            .next()
            .unwrap_or_default()
    }

    pub fn place(&self, name: &str) -> Path {
        Path::from(if self.scheme() == "file" {
            name.to_owned()
        } else {
            format!("t/{name}")
        })
    }

    /// A file of a local table.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.as_ref().expect("a local table").path().join(name)
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
        datafusion_hnsw::register(&ctx).expect("registered");
        if self.scheme() != "file" {
            ctx.register_object_store(self.root.as_ref(), Arc::clone(&self.store));
        }
        let cache = self.cache.path().display();
        run(&ctx, &format!("SET hnsw.cache_dir = '{cache}'")).await;
        run(
            &ctx,
            &format!(
                "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'",
                self.url
            ),
        )
        .await;
        ctx
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

pub async fn run(ctx: &SessionContext, sql: &str) -> String {
    let answer = async { ctx.hnsw_sql(sql).await?.collect().await };
    let batches = answer.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pretty_format_batches(&batches).expect("text").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_in_s3_is_built_used_and_dropped_on_a_bad_network() {
    let server = S3::start();
    let client = server.client();
    let direct = Table::s3(client);
    direct.put("a.parquet", parquet(0..500)).await;
    direct.put("b.parquet", parquet(500..700)).await;
    assert_eq!(direct.answers().await, "2 no_sidecar");
    for fault in [Fault::None, Fault::Error, Fault::Slow, Fault::Lost] {
        let plan = move |request: &Request| {
            if request.number % 4 == 1 && request.method == "GET" {
                fault
            } else {
                Fault::None
            }
        };
        let (client, _) = server.client_through(Duration::from_secs(5), plan).await;
        let table = Table::s3(client);
        table.create_index().await;
        assert_eq!(table.answers().await, "2 indexed", "{fault:?}");
        assert_eq!(direct.answers().await, "2 indexed", "{fault:?}");
        run(&table.session().await, "DROP INDEX i ON t").await;
        assert_eq!(table.answers().await, "2 no_sidecar", "{fault:?}");
        assert_eq!(direct.answers().await, "2 no_sidecar", "{fault:?}");
    }
    let left: Vec<_> = server
        .files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "hnsw"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_on_disk_is_answered_exactly_with_the_reason() {
    a_changed_file_is_answered_exactly_with_the_reason(&Table::local(), "content").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_in_s3_is_answered_exactly_with_the_reason() {
    let server = S3::start();
    a_changed_file_is_answered_exactly_with_the_reason(&Table::s3(server.client()), "etag").await;
}

/// `replaced` is the reason when size and footer stay the same.
async fn a_changed_file_is_answered_exactly_with_the_reason(table: &Table, replaced: &str) {
    let original = parquet(0..300);
    table.put("a.parquet", original.clone()).await;
    table.create_index().await;
    assert_eq!(table.answers().await, "1 indexed");

    // Rows reordered: the same size and the same footer.
    let reordered = parquet((0..300).rev());
    assert_eq!(reordered.len(), original.len());
    assert_eq!(
        reordered[reordered.len() - 200..],
        original[original.len() - 200..]
    );
    table.put("a.parquet", reordered).await;
    assert_eq!(table.answers().await, format!("1 stale:{replaced}"));
    // Other rows of the same number.
    table.put("a.parquet", parquet(1000..1300)).await;
    assert_eq!(table.answers().await, format!("1 stale:{replaced}"));
    // Appended.
    table.put("a.parquet", parquet(0..301)).await;
    assert_eq!(table.answers().await, "1 stale:size");
    // Built again.
    table.create_index().await;
    assert_eq!(table.answers().await, "1 indexed");
    // Deleted, and a new one put in its place.
    table.store.delete(&table.place("a.parquet")).await.expect("ours");
    table.put("a.parquet", parquet(7..308)).await;
    assert_eq!(table.answers().await, format!("1 stale:{replaced}"));
    table.create_index().await;
    assert_eq!(table.answers().await, "1 indexed");

    // What happens to the sidecar.
    let place = table.place("_hnsw/a.parquet.v.l2.hnsw");
    let good = table
        .store
        .get(&place)
        .await
        .expect("there")
        .bytes()
        .await
        .expect("there");
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 4] = [
        ("damaged", |bytes| bytes.truncate(bytes.len() / 2)),
        ("damaged", |bytes| bytes[20] ^= 0xFF),
        ("damaged", Vec::clear),
        ("newer_format", |bytes| bytes[12] = 77),
    ];
    for (expected, change) in changes {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        table.store.put(&place, bytes.into()).await.expect("room");
        let answer = table.answers().await;
        assert!(answer.starts_with(&format!("1 {expected}")), "{answer}");
    }
    table.store.put(&place, good.clone().into()).await.expect("room");
    assert_eq!(table.answers().await, "1 indexed");
    // Of another file: this one's bytes are not those.
    table.put("b.parquet", parquet(2000..2050)).await;
    let theirs = table.place("_hnsw/b.parquet.v.l2.hnsw");
    table.store.put(&theirs, good.into()).await.expect("room");
    assert_eq!(table.answers().await, "1 indexed, 1 stale:size");
    // Removed behind our back.
    table.store.delete(&place).await.expect("ours");
    assert_eq!(table.answers().await, "1 no_sidecar, 1 stale:size");
}

#[cfg(unix)]
#[test]
fn data_that_may_only_be_read_is_indexed_under_another_directory() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    let (data, indexes) = (dir.path().join("t"), dir.path().join("indexes"));
    for (path, rights) in [(&data, 0o755), (&indexes, 0o777)] {
        std::fs::create_dir(path).expect("room");
        mode(path, rights);
    }
    std::fs::write(data.join("a.parquet"), parquet(0..50)).expect("room");
    mode(&data, 0o555);
    mode(dir.path(), 0o755);
    let mut child = crate::child::command("sidecar dir", dir.path());
    crate::local::as_nobody_if_we_are_root(&mut child, dir.path());
    let output = child.output().expect("this program starts");
    mode(&data, 0o755);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("beside: ") && text.contains("hnsw.sidecar_dir"),
        "{text}"
    );
    assert!(
        text.contains("files=[1 indexed]") && text.contains("fresh"),
        "{text}"
    );
    assert_eq!(crate::sample::names(&data), ["a.parquet"]);
}
