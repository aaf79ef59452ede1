//! Queries end to end: p50 and p99, and recall@10 against the exact answer; and where the time goes.
//!
//! ```text
//! HNSW_BENCH_DATA=packages.parquet HNSW_BENCH_QUERIES=queries.parquet cargo bench --features shell --bench sql
//! ```
//!
//! Words after `--` choose the lines whose names contain one of them; `HNSW_BENCH_ROUNDS=20` asks every query
//! 20 times (for a profiler).
//!
//! Both files have columns `id`, `package`, `description`, `installed_size` and `embedding`; without them the
//! repository's example data is used, and its own rows as queries. `HNSW_BENCH_SYNTH=1` takes the 200,000 rows of
//! 128 numbers that the engine's benchmark makes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::ParamValues;
use datafusion::error::Result;
use datafusion::prelude::{SessionContext, col, lit};
use datafusion_hnsw::{HnswSessionExt, KnnOptions, VectorTable};

#[path = "sql/ask.rs"]
mod ask;
#[path = "sql/split.rs"]
mod split;
#[path = "sql/synth.rs"]
mod synth;

use ask::{ids, parameter, run, vectors_of};

const WARM_UP: usize = 20;

/// The shell's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The ids of the right answer, for each query.
type Truth = Arc<Vec<HashSet<i64>>>;

struct Bench {
    ctx: SessionContext,
    vectors: Vec<Vec<f32>>,
    /// The rows of the table of queries that hold them.
    keys: Vec<i64>,
    /// The names to measure; all, if there are none.
    words: Vec<String>,
    rounds: usize,
    /// The exact answer to each query, by filter and k.
    truth: Mutex<HashMap<(String, usize), Truth>>,
}

/// One way to ask.
#[derive(Clone, Copy)]
enum Vector {
    Literal,
    Parameter,
    TableFunction,
    Direct,
    /// The vector of a row of the table of queries.
    Subquery,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/packages.parquet");
    let given = |name| std::env::var_os(name).map(PathBuf::from);
    let around = tempfile::tempdir()?;
    // The sidecars of files in it lie next to it.
    let dir = around.path().join("t");
    std::fs::create_dir(&dir)?;
    let (data, queries) = if std::env::var_os("HNSW_BENCH_SYNTH").is_some() {
        synth::write(&dir)?
    } else {
        let data = given("HNSW_BENCH_DATA").unwrap_or_else(|| example.clone());
        let queries = given("HNSW_BENCH_QUERIES").unwrap_or_else(|| data.clone());
        (data, queries)
    };
    std::fs::copy(&data, dir.join("packages.parquet"))?;

    let ctx = SessionContext::new();
    datafusion_hnsw::register(&ctx)?;
    let at = dir.join("packages.parquet");
    run(
        &ctx,
        &format!(
            "CREATE EXTERNAL TABLE packages STORED AS PARQUET LOCATION '{}'",
            at.display()
        ),
    )
    .await?;
    run(
        &ctx,
        &format!(
            "CREATE EXTERNAL TABLE queries STORED AS PARQUET LOCATION '{}'",
            queries.display()
        ),
    )
    .await?;
    let start = Instant::now();
    run(
        &ctx,
        "CREATE INDEX ON packages USING hnsw (embedding) WITH (metric = 'cosine')",
    )
    .await?;
    let built = start.elapsed();
    let found = run(&ctx, "SELECT embedding, id FROM queries LIMIT 250").await?;
    let vectors: Vec<Vec<f32>> = found.iter().flat_map(vectors_of).collect();
    let keys = found
        .iter()
        .flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    let rows = run(&ctx, "SELECT id FROM packages")
        .await?
        .iter()
        .map(RecordBatch::num_rows)
        .sum::<usize>();
    println!(
        "n {rows}, dim {}, cosine, m 16, ef_construction 200, ef_search 64, {} queries; CREATE INDEX {:.2} s",
        vectors[0].len(),
        vectors.len(),
        built.as_secs_f64()
    );
    println!(
        "{:<44} {:>9} {:>9} {:>9} {:>6}",
        "query", "p50 ms", "p99 ms", "recall@k", "rows"
    );
    let bench = Bench {
        ctx,
        vectors,
        keys,
        words: std::env::args()
            .skip(1)
            .filter(|word| !word.starts_with('-'))
            .collect(),
        rounds: std::env::var("HNSW_BENCH_ROUNDS").map_or(1, |n| n.parse().expect("a number")),
        truth: Mutex::default(),
    };
    bench.all().await
}

impl Bench {
    async fn all(&self) -> Result<()> {
        let id = "id, cosine_distance(embedding, Q) AS d";
        let text = "id, package, description";
        let size = |part: f64| {
            format!(
                "WHERE installed_size < (SELECT approx_percentile_cont(installed_size, {part}) FROM packages)"
            )
        };
        let mut filters = vec![];
        for part in [0.107, 0.009, 0.0012] {
            let limit = run(
                &self.ctx,
                &format!("SELECT max(installed_size) FROM packages {}", size(part)),
            )
            .await;
            let limit = limit
                .ok()
                .and_then(|b| Some(b.first()?.column(0).as_primitive_opt::<Int64Type>()?.value(0)));
            filters.push((part, limit.unwrap_or(0)));
        }
        self.baseline("SELECT id FROM packages LIMIT 10").await?;
        self.measure("top-10 id + distance, literal", id, "", 10, Vector::Literal)
            .await?;
        self.measure("top-10 id + distance, $1", id, "", 10, Vector::Parameter)
            .await?;
        self.measure("top-10 id + distance, subquery", id, "", 10, Vector::Subquery)
            .await?;
        self.measure(
            "top-10 id + distance, vector_search",
            "id, _distance",
            "",
            10,
            Vector::TableFunction,
        )
        .await?;
        self.measure("top-10 id + distance, direct call", "id", "", 10, Vector::Direct)
            .await?;
        self.measure("top-10 + text columns, $1", text, "", 10, Vector::Parameter)
            .await?;
        self.measure("top-10 SELECT *, $1", "*", "", 10, Vector::Parameter)
            .await?;
        self.measure("top-100 id + distance, $1", id, "", 100, Vector::Parameter)
            .await?;
        for (part, limit) in filters {
            let filter = format!("WHERE installed_size <= {limit}");
            self.measure(
                &format!("top-10 WHERE keeps {:.2} %, cold, $1", part * 100.0),
                id,
                &filter,
                10,
                Vector::Parameter,
            )
            .await?;
            self.measure(
                &format!("top-10 WHERE keeps {:.2} %, $1", part * 100.0),
                id,
                &filter,
                10,
                Vector::Parameter,
            )
            .await?;
        }
        for mode in ["exact", "off"] {
            run(&self.ctx, &format!("SET hnsw.mode = '{mode}'")).await?;
            for (how, vector) in [("$1", Vector::Parameter), ("subquery", Vector::Subquery)] {
                let name = format!("mode {mode}: top-10 id + distance, {how}");
                self.measure(&name, id, "", 10, vector).await?;
            }
        }
        run(&self.ctx, "SET hnsw.mode = 'auto'").await?;
        split::print_head();
        self.split("split, literal", Some(Vector::Literal)).await?;
        self.split("split, $1", Some(Vector::Parameter)).await?;
        self.split("SELECT id FROM packages LIMIT 10", None).await
    }

    fn asked_for(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    async fn baseline(&self, sql: &str) -> Result<()> {
        if !self.asked_for(sql) {
            return Ok(());
        }
        let mut times = vec![];
        for _ in 0..200 * self.rounds {
            let start = Instant::now();
            run(&self.ctx, sql).await?;
            times.push(start.elapsed());
        }
        print(sql, times, f64::NAN, 10);
        Ok(())
    }

    async fn measure(&self, name: &str, columns: &str, filter: &str, k: usize, vector: Vector) -> Result<()> {
        if !self.asked_for(name) {
            return Ok(());
        }
        let (mut times, mut hits, mut wanted, mut fewest) = (vec![], 0, 0, usize::MAX);
        let slow = name.starts_with("mode");
        let queries = if slow { 20 } else { self.vectors.len() };
        let truth = self.truth(filter, k).await?;
        for round in 0..self.rounds {
            for number in 0..queries.min(self.vectors.len()) {
                // A filter that nobody remembers, with the same rows.
                let filter = match name.contains("cold") {
                    true => format!("{filter} AND id <> -{}", round * queries + number + 1),
                    false => filter.to_owned(),
                };
                let start = Instant::now();
                let batches = self.ask(columns, &filter, k, vector, number).await?;
                if round > 0 || number >= WARM_UP || slow {
                    times.push(start.elapsed());
                }
                let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                fewest = fewest.min(rows);
                let (found, truth) = (ids(&batches), &truth[number]);
                hits += truth.iter().filter(|id| found.contains(id)).count();
                wanted += truth.len();
            }
        }
        print(name, times, hits as f64 / wanted as f64, fewest);
        Ok(())
    }

    async fn ask(
        &self,
        columns: &str,
        filter: &str,
        k: usize,
        how: Vector,
        number: usize,
    ) -> Result<Vec<RecordBatch>> {
        let query = &self.vectors[number];
        let literal = || format!("{query:?}");
        let sql = |q: &str| {
            let columns = columns.replace('Q', q);
            format!(
                "SELECT {columns} FROM packages {filter} ORDER BY cosine_distance(embedding, {q}) LIMIT {k}"
            )
        };
        match how {
            Vector::Literal => run(&self.ctx, &sql(&literal())).await,
            Vector::Parameter => {
                let frame = self.ctx.hnsw_sql(&sql("$1")).await?;
                let params = ParamValues::from(vec![parameter(query)]);
                Box::pin(async move { frame.with_param_values(params)?.collect().await }).await
            }
            Vector::Subquery => {
                let key = self.keys[number];
                run(
                    &self.ctx,
                    &sql(&format!("(SELECT embedding FROM queries WHERE id = {key})")),
                )
                .await
            }
            Vector::TableFunction => {
                let sql = format!(
                    "SELECT {columns} FROM vector_search('packages', 'embedding', {}, {k})",
                    literal()
                );
                run(&self.ctx, &sql).await
            }
            Vector::Direct => {
                let table = VectorTable::open(&self.ctx, "packages").await?;
                let query: Vec<f64> = query.iter().map(|&x| f64::from(x)).collect();
                let options = KnnOptions {
                    projection: Some(vec![columns.to_owned()]),
                    ..KnnOptions::default()
                };
                Ok(vec![
                    table.search(&self.ctx, "embedding", &query, k, &options).await?,
                ])
            }
        }
    }

    /// The exact answers, by our scan without a graph, which the tests hold to DataFusion's own.
    async fn truth(&self, filter: &str, k: usize) -> Result<Truth> {
        let key = (filter.to_owned(), k);
        if let Some(known) = self.known().get(&key) {
            return Ok(Arc::clone(known));
        }
        let table = VectorTable::open(&self.ctx, "packages").await?;
        let limit = filter.rsplit(' ').next().and_then(|n| n.parse::<i64>().ok());
        let options = KnnOptions {
            projection: Some(vec!["id".to_owned()]),
            filter: limit.map(|limit| col("installed_size").lt_eq(lit(limit))),
            ef_search: Some(usize::MAX),
            ..KnnOptions::default()
        };
        let mut all = vec![];
        for query in &self.vectors {
            let query: Vec<f64> = query.iter().map(|&x| f64::from(x)).collect();
            let nearest = table.search(&self.ctx, "embedding", &query, k, &options).await?;
            all.push(ids(&[nearest]));
        }
        let all = Arc::new(all);
        self.known().insert(key, Arc::clone(&all));
        Ok(all)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(String, usize), Truth>> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print(name: &str, mut times: Vec<Duration>, recall: f64, rows: usize) {
    times.sort_unstable();
    let at = |hundredths: usize| times[(times.len() - 1) * hundredths / 100].as_secs_f64() * 1e3;
    println!(
        "{name:<44} {:>9.3} {:>9.3} {recall:>9.4} {rows:>6}",
        at(50),
        at(99)
    );
}
