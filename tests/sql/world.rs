//! Generated tables: the awkward rows of every kind, in several files, some of them indexed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int32Array, Int64Array, LargeListArray,
    ListArray, RecordBatch, StringArray,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::SessionContext;
use rand::Rng;
use rand::rngs::StdRng;
use tempfile::TempDir;

/// A vector column: its type, and how wild its values are.
#[derive(Clone, Debug)]
pub struct VectorColumn {
    pub name: &'static str,
    pub dim: usize,
    pub item: DataType,
    list: ListKind,
    values: Values,
    null_vectors: f64,
    null_items: f64,
    zeros: f64,
    not_finite: f64,
    huge: f64,
}

#[derive(Clone, Copy, Debug)]
enum ListKind {
    Fixed,
    List,
    Large,
}

#[derive(Clone, Copy, Debug)]
enum Values {
    /// Small integers: equal vectors and equal distances everywhere.
    Grid,
    /// Anything between -1 and 1.
    Smooth,
    /// So near each other that only 64 bits tell them apart.
    Close,
}

/// Tables `t` (vectors), `u` (something to join) and view `nearby` over files of their own.
pub struct World {
    _directory: TempDir,
    root: PathBuf,
    pub description: String,
    pub columns: Vec<VectorColumn>,
    pub rows: usize,
    pub partitioned: bool,
    /// Whether at least one file has an index.
    pub indexed: bool,
    /// What went wrong while the indexes were made.
    pub trouble: Option<String>,
}

impl World {
    pub async fn generate(rng: &mut StdRng) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().to_path_buf();
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
    pub async fn plain(&self) -> SessionContext {
        let ctx = SessionContext::new();
        self.create_tables(&ctx).await;
        ctx
    }

    /// A session with the extension.
    pub async fn ours(&self) -> SessionContext {
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
            ctx.sql(&sql).await.expect(&sql).collect().await.expect(&sql);
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
                    statements.push(format!("'t', '{}', 'metric={metric}, m={m}'", column.name));
                }
            }
        }
        statements
    }

    async fn create_indexes(&mut self, statements: &[String]) -> Result<(), String> {
        let ctx = self.ours().await;
        for arguments in statements {
            let sql = format!("SELECT * FROM hnsw_create_index({arguments})");
            let build = async { ctx.sql(&sql).await?.collect().await };
            build
                .await
                .map_err(|error| format!("{sql}: {}", error.strip_backtrace()))?;
            self.indexed = true;
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
                    let path = &beside[rng.random_range(0..beside.len())];
                    let mut bytes = fs::read(path).expect("read");
                    let place = rng.random_range(0..bytes.len());
                    if rng.random_bool(0.5) {
                        bytes.truncate(place);
                    } else {
                        bytes[place] ^= 1 << rng.random_range(0..8);
                    }
                    // A published sidecar is never changed in place: it may be mapped.
                    fs::remove_file(path).expect("removed");
                    fs::write(path, bytes).expect("written");
                    "one sidecar damaged"
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

fn sidecars_of(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let folder = fs::read_dir(path.parent().expect("a folder")).expect("listed");
    let mut beside: Vec<_> = folder
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let file = path.file_name().expect("a name").to_string_lossy();
            file.starts_with(&format!("{name}.")) && file.ends_with(".hnsw")
        })
        .collect();
    beside.sort();
    beside
}

fn vector_column(rng: &mut StdRng, name: &'static str) -> VectorColumn {
    let sometimes =
        |rng: &mut StdRng, likely: f64, share: f64| if rng.random_bool(likely) { share } else { 0.0 };
    VectorColumn {
        name,
        dim: [1, 2, 3, 8, 33][rng.random_range(0..5)],
        item: [
            DataType::Float32,
            DataType::Float32,
            DataType::Float64,
            DataType::Float16,
        ][rng.random_range(0..4)]
        .clone(),
        list: [ListKind::Fixed, ListKind::Fixed, ListKind::List, ListKind::Large][rng.random_range(0..4)],
        values: [Values::Grid, Values::Smooth, Values::Smooth, Values::Close][rng.random_range(0..4)],
        null_vectors: sometimes(rng, 0.5, 0.15),
        null_items: sometimes(rng, 0.3, 0.02),
        zeros: sometimes(rng, 0.4, 0.1),
        not_finite: sometimes(rng, 0.2, 0.05),
        huge: sometimes(rng, 0.2, 0.1),
    }
}

impl VectorColumn {
    /// One vector as its type can hold it (before rounding to it).
    pub fn vector(&self, rng: &mut StdRng) -> Vec<f64> {
        if rng.random_bool(self.zeros) {
            return vec![if rng.random_bool(0.8) { 0.0 } else { -0.0 }; self.dim];
        }
        let scale = if rng.random_bool(self.huge) {
            let extremes: &[f64] = match self.item {
                DataType::Float16 => &[6e4, 6e-8, 1e-5],
                DataType::Float32 => &[1e38, 1e20, 1e-20, 1e-38, 1e-45],
                _ => &[1e300, 1e160, 1e39, 1e20, 1e-20, 1e-160, 1e-300],
            };
            extremes[rng.random_range(0..extremes.len())]
        } else {
            1.0
        };
        (0..self.dim)
            .map(|_| {
                let value = match self.values {
                    Values::Grid => f64::from(rng.random_range(-2..=2)),
                    Values::Smooth => rng.random_range(-1.0..1.0),
                    Values::Close => 0.75 + rng.random_range(0.0..1e-7),
                };
                value * scale
            })
            .collect()
    }

    fn array(&self, rng: &mut StdRng, rows: usize) -> ArrayRef {
        let mut items: Vec<Option<f64>> = Vec::new();
        let mut offsets = vec![0];
        let mut valid = Vec::new();
        for _ in 0..rows {
            let null = rng.random_bool(self.null_vectors);
            valid.push(!null);
            if !(null && !matches!(self.list, ListKind::Fixed)) {
                let mut vector: Vec<_> = self.vector(rng).into_iter().map(Some).collect();
                if self.not_finite > 0.0 && rng.random_bool(self.not_finite) {
                    let strange = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][rng.random_range(0..3)];
                    vector[rng.random_range(0..self.dim)] = Some(strange);
                }
                for item in &mut vector {
                    if rng.random_bool(self.null_items) {
                        *item = None;
                    }
                }
                items.extend(vector);
            }
            offsets.push(items.len());
        }
        let items: ArrayRef = Arc::new(Float64Array::from(items));
        let items = cast(&items, &self.item).expect("floats become floats");
        let field = Arc::new(Field::new("item", self.item.clone(), true));
        let nulls = Some(NullBuffer::from(valid));
        match self.list {
            ListKind::Fixed => {
                let dim = i32::try_from(self.dim).expect("few dimensions");
                Arc::new(FixedSizeListArray::new(field, dim, items, nulls))
            }
            ListKind::List => {
                let offsets = offsets
                    .iter()
                    .map(|&o| i32::try_from(o).expect("few items"))
                    .collect();
                Arc::new(ListArray::new(field, OffsetBuffer::new(offsets), items, nulls))
            }
            ListKind::Large => {
                let offsets = offsets
                    .iter()
                    .map(|&o| i64::try_from(o).expect("few items"))
                    .collect();
                Arc::new(LargeListArray::new(
                    field,
                    OffsetBuffer::new(offsets),
                    items,
                    nulls,
                ))
            }
        }
    }

    pub fn is_large(&self) -> bool {
        matches!(self.list, ListKind::Large)
    }

    pub fn data_type(&self) -> DataType {
        let field = Arc::new(Field::new("item", self.item.clone(), true));
        match self.list {
            ListKind::Fixed => {
                DataType::FixedSizeList(field, i32::try_from(self.dim).expect("few dimensions"))
            }
            ListKind::List => DataType::List(field),
            ListKind::Large => DataType::LargeList(field),
        }
    }
}
