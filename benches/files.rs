//! What the number of files costs: p50 of a top-10 over 1, 10, 100 and 1,000 files.
//!
//! ```text
//! cargo bench --features shell --bench files
//! ```
//!
//! `HNSW_BENCH_ROWS` rows a file (200), `HNSW_BENCH_FILES` files at most (1000). Two layouts: vectors near a centre of
//! their file's own, as when a table is sorted by topic, and vectors that lie anywhere in every file.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{ArrayRef, FixedSizeListBuilder, Float32Builder, Int64Array, RecordBatch};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const DIM: i32 = 64;
const ROUNDS: usize = 60;
const WARM_UP: usize = 10;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let given = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    let rows = given("HNSW_BENCH_ROWS").unwrap_or(200);
    let most = given("HNSW_BENCH_FILES").unwrap_or(1000);
    println!(
        "{rows} rows a file, dim {DIM}, l2, m 16, ef_construction 200, ef_search 64; top-10 of id and distance"
    );
    println!(
        "{:<10} {:>6} {:>9} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9}",
        "layout",
        "files",
        "rows",
        "create s",
        "first ms",
        "off plan",
        "plan ms",
        "p50 ms",
        "skipped",
        "recall"
    );
    for clustered in [true, false] {
        for files in [1, 10, 100, 1000].into_iter().filter(|&files| files <= most) {
            measure(clustered, files, rows).await?;
        }
    }
    Ok(())
}

async fn measure(clustered: bool, files: usize, rows: usize) -> Result<()> {
    let around = tempfile::tempdir()?;
    // The sidecars of files in it lie next to it.
    let dir = around.path().join("t");
    std::fs::create_dir(&dir)?;
    let mut rng = StdRng::seed_from_u64(11);
    let mut queries = vec![];
    for file in 0..files {
        let centre = point(&mut rng, 1.0, None);
        write(&dir, file, rows, clustered.then_some(&centre), &mut rng)?;
        if queries.len() < ROUNDS {
            queries.push(centre);
        }
    }
    while queries.len() < ROUNDS {
        let again = queries[queries.len() % files].clone();
        queries.push(point(&mut rng, 0.05, Some(&again)));
    }
    let ctx = open(&dir).await?;
    let begun = Instant::now();
    run(&ctx, "CREATE INDEX ON t USING hnsw (v) WITH (metric = 'l2')").await?;
    let created = begun.elapsed();
    // As a new process finds it: no footer and no sidecar is open.
    let ctx = open(&dir).await?;
    let begun = Instant::now();
    ask(&ctx, &queries[0]).await?;
    let first = begun.elapsed();
    let (mut plans, mut times, mut skipped, mut found, mut wanted) = (vec![], vec![], 0, 0, 0);
    for (round, query) in queries.iter().enumerate() {
        let (plan, answer, planning, whole) = ask(&ctx, query).await?;
        if round >= WARM_UP {
            plans.push(planning);
            times.push(whole);
            skipped += metric(plan.as_ref(), "files_skipped");
        }
        if round % 10 == 0 {
            run(&ctx, "SET hnsw.mode = 'exact'").await?;
            let (_, truth, ..) = ask(&ctx, query).await?;
            run(&ctx, "SET hnsw.mode = 'auto'").await?;
            wanted += truth.len();
            found += truth.iter().filter(|id| answer.contains(id)).count();
        }
    }
    // What DataFusion takes to plan the same without us.
    run(&ctx, "SET hnsw.mode = 'off'").await?;
    let mut off = vec![];
    for query in queries.iter().take(10) {
        let begun = Instant::now();
        ctx.hnsw_sql(&sql(query)).await?.create_physical_plan().await?;
        off.push(begun.elapsed());
    }
    println!(
        "{:<10} {files:>6} {:>9} {:>10.2} {:>10.2} {:>10.3} {:>10.3} {:>10.3} {:>9.1} {:>9.4}",
        if clustered { "clustered" } else { "mixed" },
        files * rows,
        created.as_secs_f64(),
        first.as_secs_f64() * 1e3,
        p50(off),
        p50(plans),
        p50(times.clone()),
        skipped as f64 / times.len() as f64,
        found as f64 / wanted as f64,
    );
    Ok(())
}

async fn open(dir: &Path) -> Result<SessionContext> {
    let ctx = SessionContext::new();
    datafusion_hnsw::register(&ctx)?;
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}/'",
        dir.display()
    );
    run(&ctx, &sql).await?;
    Ok(ctx)
}

type Answer = (Arc<dyn ExecutionPlan>, Vec<i64>, Duration, Duration);

fn sql(query: &[f32]) -> String {
    format!("SELECT id, array_distance(v, {query:?}) AS d FROM t ORDER BY d LIMIT 10")
}

async fn ask(ctx: &SessionContext, query: &[f32]) -> Result<Answer> {
    let sql = sql(query);
    let begun = Instant::now();
    let plan = ctx.hnsw_sql(&sql).await?.create_physical_plan().await?;
    let planning = begun.elapsed();
    let batches = collect(Arc::clone(&plan), ctx.task_ctx()).await?;
    let whole = begun.elapsed();
    let mut ids = vec![];
    for batch in &batches {
        for row in 0..batch.num_rows() {
            if let ScalarValue::Int64(Some(id)) = ScalarValue::try_from_array(batch.column(0), row)? {
                ids.push(id);
            }
        }
    }
    Ok((plan, ids, planning, whole))
}

/// The sum of a metric over a plan.
fn metric(plan: &dyn ExecutionPlan, name: &str) -> usize {
    let here = plan.metrics().and_then(|metrics| metrics.sum_by_name(name));
    let below = plan
        .children()
        .into_iter()
        .map(|child| metric(child.as_ref(), name));
    here.map_or(0, |value| value.as_usize()) + below.sum::<usize>()
}

async fn run(ctx: &SessionContext, sql: &str) -> Result<()> {
    let frame = ctx.hnsw_sql(sql).await?;
    Box::pin(frame.collect()).await.map(|_| ())
}

fn point(rng: &mut StdRng, spread: f32, around: Option<&Vec<f32>>) -> Vec<f32> {
    let axes = usize::try_from(DIM).unwrap_or(0);
    (0..axes)
        .map(|axis| spread * rng.random_range(-1.0..1.0_f32) + around.map_or(0.0, |centre| centre[axis]))
        .collect()
}

fn write(dir: &Path, file: usize, rows: usize, centre: Option<&Vec<f32>>, rng: &mut StdRng) -> Result<()> {
    let mut vectors = FixedSizeListBuilder::new(Float32Builder::new(), DIM);
    for _ in 0..rows {
        let spread = if centre.is_some() { 0.2 } else { 1.0 };
        vectors.values().append_slice(&point(rng, spread, centre));
        vectors.append(true);
    }
    let first = i64::try_from(file * rows).unwrap_or(0);
    let ids = Int64Array::from_iter_values((first..).take(rows));
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("v", Arc::new(vectors.finish()))];
    let batch = RecordBatch::try_from_iter(columns)?;
    let out = std::fs::File::create(dir.join(format!("{file:04}.parquet")))?;
    let mut writer = ArrowWriter::try_new(out, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
