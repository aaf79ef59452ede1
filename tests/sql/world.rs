//! Generated tables: the awkward rows of every kind, in several files, some of them indexed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt;
use rand::Rng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::vectors::{VectorColumn, vector_column};

/// Tables `t` (vectors), `u` (something to join) and view `nearby` over files of their own.
pub(crate) struct World {
    _directory: TempDir,
    root: PathBuf,
    pub(crate) description: String,
    pub(crate) columns: Vec<VectorColumn>,
    pub(crate) rows: usize,
    pub(crate) partitioned: bool,
    /// Whether at least one file has an index.
    pub(crate) indexed: bool,
    /// What went wrong while the indexes were made.
    pub(crate) trouble: Option<String>,
}

impl World {
    pub(crate) async fn generate(rng: &mut StdRng) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The sidecars lie next to it.
        let root = directory.path().join("t");
        std::fs::create_dir(&root).expect("room");
        let columns = vec![vector_column(rng, "v"), vector_column(rng, "w")];
        let partitioned = rng.random_bool(0.15);
        let mut world = Self {
            _directory: directory,
            root,
            description: String::new(),
            columns,
            rows: 0,
            partitioned,
            indexed: false,
            trouble: None,
        };
        let files = world.write_files(rng);
        let statements = world.index_statements(rng);
        if let Err(error) = world.create_indexes(&statements).await {
            world.trouble = Some(format!("{statements:?}\n{error}"));
        }
        let fates = world.disturb(rng, &files);
        world.description = format!(
            "{:?}\n{} rows, partitioned: {partitioned}, indexes: {statements:?}, files: {fates:?}",
            world.columns, world.rows
        );
        world
    }

    /// A session that has never heard of us.
    pub(crate) async fn plain(&self) -> SessionContext {
        let ctx = SessionContext::new();
        self.create_tables(&ctx).await;
        ctx
    }

    /// A session with the extension.
    pub(crate) async fn ours(&self) -> SessionContext {
        let ctx = SessionContext::new();
        datafusion_hnsw::register(&ctx).expect("the extension registers");
        self.create_tables(&ctx).await;
        ctx
    }

    async fn create_tables(&self, ctx: &SessionContext) {
        let partitions = if self.partitioned {
            "PARTITIONED BY (p) "
        } else {
            ""
        };
        for sql in [
            format!(
                "CREATE EXTERNAL TABLE t STORED AS PARQUET {partitions}LOCATION '{}/t/'",
                self.root.display()
            ),
            "CREATE TABLE u AS SELECT column1 AS num, column2 AS label
             FROM (VALUES (1, 'one'), (2, 'two'), (3, 'three'), (3, 'again three'), (NULL, 'none'))"
                .to_string(),
            "CREATE VIEW nearby AS SELECT id, num, cat, flag, v, w FROM t WHERE num IS NOT NULL".to_string(),
        ] {
            ctx.hnsw_sql(&sql).await.expect(&sql).collect().await.expect(&sql);
        }
    }

    /// Writes one to four files; gives their paths.
    fn write_files(&mut self, rng: &mut StdRng) -> Vec<PathBuf> {
        let files = rng.random_range(1..=4);
        let mut paths = Vec::new();
        for file in 0..files {
            let rows = if rng.random_bool(0.05) {
                0
            } else {
                rng.random_range(1..=80)
            };
            let folder = if self.partitioned {
                format!("t/p={}", file % 2)
            } else {
                "t".to_string()
            };
            let path = self.root.join(folder).join(format!("{file}.parquet"));
            self.write_file(rng, &path, self.rows, rows);
            self.rows += rows;
            paths.push(path);
        }
        paths
    }

    fn write_file(&self, rng: &mut StdRng, path: &Path, first: usize, rows: usize) {
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        let id = |row: usize| i64::try_from(row).expect("few rows");
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((first..first + rows).map(id)));
        let nums = (0..rows).map(|_| rng.random_bool(0.85).then(|| rng.random_range(0..10)));
        let nums: ArrayRef = Arc::new(nums.collect::<Int32Array>());
        let cats = ["a", "b", "b c", "d%", ""];
        let cats = (0..rows).map(|_| {
            rng.random_bool(0.9)
                .then(|| cats[rng.random_range(0..cats.len())])
        });
        let cats: ArrayRef = Arc::new(cats.collect::<StringArray>());
        let flags = (0..rows).map(|_| rng.random_bool(0.9).then(|| rng.random_bool(0.3)));
        let flags: ArrayRef = Arc::new(flags.collect::<BooleanArray>());
        let mut named = vec![("id", ids), ("num", nums), ("cat", cats), ("flag", flags)];
        named.extend(
            self.columns
                .iter()
                .map(|column| (column.name, column.array(rng, rows))),
        );
        // A table's files are of all ages.
        if first > 0 && rng.random_bool(0.1) {
            let missing = ["num", "cat", "v", "w"][rng.random_range(0..4)];
            named.retain(|(name, _)| *name != missing);
        }
        let batch = RecordBatch::try_from_iter_with_nullable(named.into_iter().map(|(n, a)| (n, a, true)));
        let batch = batch.expect("columns of one length");
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some([5, 17, 1000][rng.random_range(0..3)]))
            .set_data_page_row_count_limit([3, 1000][rng.random_range(0..2)])
            .set_write_batch_size(3)
            .build();
        let file = File::create(path).expect("a file is created");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("rows are written");
        writer.close().expect("the file is closed");
    }

    fn index_statements(&self, rng: &mut StdRng) -> Vec<String> {
        let mut statements = Vec::new();
        for column in &self.columns {
            for metric in ["cosine", "l2", "ip"] {
                if rng.random_bool(0.55) {
                    let m = [2, 4, 16][rng.random_range(0..3)];
                    let stored = ["f32", "f32", "f16", "none"][rng.random_range(0..4)];
                    let options = format!("metric={metric}, m={m}, stored={stored}");
                    statements.push(format!("'t', '{}', '{options}'", column.name));
                }
            }
        }
        statements
    }

    async fn create_indexes(&mut self, statements: &[String]) -> Result<(), String> {
        let ctx = self.ours().await;
        for arguments in statements {
            let sql = format!("SELECT * FROM hnsw_create_index({arguments})");
            let build = async { ctx.hnsw_sql(&sql).await?.collect().await };
            build
                .await
                .map_err(|error| format!("{sql}: {}", error.strip_backtrace()))?;
            self.indexed = true;
        }
        let broken = "SELECT file, reason FROM hnsw_verify('t') WHERE state = 'damaged'";
        let verified = async { ctx.hnsw_sql(broken).await?.collect().await };
        let found = verified.await.map_err(|error| format!("{broken}: {error}"))?;
        if found.iter().any(|batch| batch.num_rows() > 0) {
            return Err(pretty_format_batches(&found).expect("text").to_string());
        }
        Ok(())
    }

    /// Makes some indexes stale, some damaged, some absent; the rest stay.
    fn disturb(&mut self, rng: &mut StdRng, files: &[PathBuf]) -> Vec<String> {
        let mut fates = Vec::new();
        let mut first = 0;
        for path in files {
            let rows = rows_of(path);
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let beside = sidecars_of(path);
            let fate = match rng.random_range(0..10) {
                0 => {
                    self.write_file(rng, path, first, rows);
                    "rewritten"
                }
                1 => {
                    beside
                        .iter()
                        .for_each(|path| fs::remove_file(path).expect("removed"));
                    "no sidecars"
                }
                2 if !beside.is_empty() => {
                    fs::remove_file(&beside[rng.random_range(0..beside.len())]).expect("removed");
                    "one sidecar less"
                }
                3 if !beside.is_empty() => {
                    // Of what is damaged inside, only checksums of the whole would tell.
                    let path = &beside[rng.random_range(0..beside.len())];
                    let mut bytes = fs::read(path).expect("read");
                    if rng.random_bool(0.7) {
                        bytes.truncate(rng.random_range(0..bytes.len()));
                    } else {
                        let other = &files[rng.random_range(0..files.len())];
                        bytes = sidecars_of(other)
                            .first()
                            .map_or(vec![], |path| fs::read(path).expect("read"));
                    }
                    // A published sidecar is never changed in place: it may be mapped.
                    fs::remove_file(path).expect("removed");
                    fs::write(path, bytes).expect("written");
                    "one sidecar cut or exchanged"
                }
                _ => "as it is",
            };
            first += rows;
            fates.push(format!("{name}: {rows} rows, {} sidecars, {fate}", beside.len()));
        }
        fates
    }
}

fn rows_of(path: &Path) -> usize {
    use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(File::open(path).expect("opened")).expect("a Parquet file");
    usize::try_from(reader.metadata().file_metadata().num_rows()).expect("few rows")
}

/// The indexes of a file, wherever below its folder they are.
fn sidecars_of(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut folders = vec![path.parent().expect("a folder").to_path_buf()];
    let mut found = vec![];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("an entry").path();
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if file.starts_with(&format!("{name}.")) && file.ends_with(".hnsw") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
