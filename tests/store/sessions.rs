//! Sixty-four sessions with mixed queries while indexes are built and dropped and files are replaced.
//!
//! `HNSW_LOAD_SECONDS` sets for how long, `HNSW_LOAD_SESSIONS` how many. Each answer is checked: every distance against
//! the vector that its row has, and a sample of the answers against the exact one over the same files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::error::Result;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_hnsw::HnswSessionExt as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sample::{TempDir, temp};
use crate::table::{DIM, number, parquet};

const FILES: i64 = 6;
const ROWS: i64 = 300;

/// What may be said while files are replaced and indexes come and go, and nothing else.
const STATED: [&str; 6] = [
    "was replaced or changed",
    "changed after its directory was listed",
    "is being built by another session",
    "was published by another session",
    "changed while",
    "have a l2 index",
];

#[derive(Debug, Default)]
struct Counts {
    queries: AtomicUsize,
    indexed: AtomicUsize,
    checked: AtomicUsize,
    /// By [`STATED`].
    told: [AtomicUsize; STATED.len()],
    passed_on: AtomicUsize,
    built: AtomicUsize,
    dropped: AtomicUsize,
    replaced: AtomicUsize,
}

struct World {
    dir: TempDir,
    counts: Counts,
    stop: AtomicBool,
}

impl World {
    fn table(&self) -> PathBuf {
        self.dir.path().join("t")
    }

    /// Puts another version of a file in its place. The rows of all versions of all files have ids of their own.
    fn replace(&self, file: i64, version: i64) {
        let first = (version * FILES + file) * ROWS;
        let fresh = self.dir.path().join(format!("fresh-{file}"));
        std::fs::write(&fresh, parquet(first..first + ROWS)).expect("room");
        std::fs::rename(fresh, self.table().join(format!("{file}.parquet"))).expect("one file system");
    }

    async fn session(&self) -> SessionContext {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        datafusion_hnsw::register(&ctx).expect("registered");
        let url = format!("file://{}/", self.table().display());
        for sql in [
            "SET hnsw.ef_search = 1000".to_owned(),
            "SET hnsw.metric = 'l2'".to_owned(),
            format!("CREATE EXTERNAL TABLE t (id BIGINT, v FLOAT[]) STORED AS PARQUET LOCATION '{url}'"),
        ] {
            let done = async { ctx.hnsw_sql(&sql).await?.collect().await };
            done.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        ctx
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts an error that may be; others end the test.
    fn told(&self, what: &str, error: &impl ToString) {
        let error = error.to_string();
        let kind = STATED.iter().position(|stated| error.contains(stated));
        let kind = kind.unwrap_or_else(|| panic!("{what}: {error}"));
        self.counts.told[kind].fetch_add(1, Ordering::Relaxed);
    }

    /// One question, in the mode at hand; `None` if it was left to DataFusion or an error was told.
    async fn ask(&self, ctx: &SessionContext, sql: &str) -> Option<Vec<RecordBatch>> {
        let planned = async { ctx.hnsw_sql(sql).await?.create_physical_plan().await };
        let plan = match planned.await {
            Ok(plan) => plan,
            Err(error) => {
                self.told(sql, &error);
                return None;
            }
        };
        let text = displayable(plan.as_ref()).indent(false).to_string();
        if text.contains("stale:listing") {
            // DataFusion's own scan does not look which file it reads.
            self.counts.passed_on.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        assert!(text.contains("Vector"), "{sql}: {text}");
        self.counts
            .indexed
            .fetch_add(usize::from(text.contains(" indexed")), Ordering::Relaxed);
        match collect(plan, ctx.task_ctx()).await {
            Ok(batches) => Some(batches),
            Err(error) => {
                self.told(sql, &error);
                None
            }
        }
    }

    async fn question(&self, ctx: &SessionContext, rng: &mut StdRng) {
        let query: Vec<f32> = (0..DIM).map(|_| rng.random_range(-1.0..1.0)).collect();
        let near = format!("array_distance(v, {query:?})");
        let k = [1, 10, 40][rng.random_range(0..3)];
        let sql = match rng.random_range(0..4) {
            0 => format!("SELECT id, {near} AS d FROM t WHERE id % 3 = 1 ORDER BY d, id LIMIT {k}"),
            1 => format!(
                "SELECT id, _distance AS d FROM vector_search('t', 'v', {query:?}, {k}) ORDER BY d, id"
            ),
            2 => format!("SELECT id, {near} AS d FROM t ORDER BY d, id LIMIT {k} OFFSET 5"),
            _ => format!("SELECT id, {near} AS d FROM t ORDER BY d, id LIMIT {k}"),
        };
        self.counts.queries.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = self.ask(ctx, &sql).await else {
            return;
        };
        let answer = rows(&answer);
        assert_eq!(answer.len(), k, "{sql}");
        for &(id, distance) in &answer {
            assert_eq!(distance, true_distance(&query, id), "{sql}: row {id}");
        }
        if rng.random_bool(0.2) {
            set_mode(ctx, "exact").await;
            if let Some(exact) = self.ask(ctx, &sql).await {
                // The same listing, so the same files.
                assert_eq!(rows(&exact), answer, "{sql}");
                self.counts.checked.fetch_add(1, Ordering::Relaxed);
            }
            set_mode(ctx, "auto").await;
        }
    }
}

async fn set_mode(ctx: &SessionContext, mode: &str) {
    let sql = format!("SET hnsw.mode = '{mode}'");
    ctx.hnsw_sql(&sql).await.expect("a setting");
}

fn rows(batches: &[RecordBatch]) -> Vec<(i64, f64)> {
    let of_batch = |batch: &RecordBatch| {
        let ids = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        let distances = batch.column(1).as_primitive::<Float64Type>().values().to_vec();
        ids.into_iter().zip(distances).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of_batch).collect()
}

/// Computed as SQL does, in f64 and in order.
fn true_distance(query: &[f32], id: i64) -> f64 {
    let sum = query.iter().zip(0..).fold(0.0, |sum, (&q, axis)| {
        // The literal's shortest decimal is what SQL reads.
        let q: f64 = format!("{q:?}").parse().expect("a number");
        let difference = f64::from(number(id, axis)) - q;
        sum + difference * difference
    });
    sum.sqrt()
}

/// Resident bytes and open file handles of this process.
fn footprint() -> Option<(usize, usize)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some((pages * 4096, std::fs::read_dir("/proc/self/fd").ok()?.count()))
}

async fn command(world: &World, sql: &str, count: &AtomicUsize) {
    let ctx = world.session().await;
    let done: Result<_> = async { ctx.hnsw_sql(sql).await?.collect().await }.await;
    match done {
        Ok(_) => _ = count.fetch_add(1, Ordering::Relaxed),
        Err(error) => world.told(sql, &error),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_sessions_get_no_wrong_answer_while_everything_changes() {
    let from_env = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let sessions = from_env("HNSW_LOAD_SESSIONS").unwrap_or(64);
    let seconds = crate::load::seconds().max(2.0);
    let world = Arc::new(World {
        dir: temp(),
        counts: Counts::default(),
        stop: AtomicBool::new(false),
    });
    std::fs::create_dir(world.table()).expect("room");
    for file in 0..FILES {
        world.replace(file, 0);
    }
    let create = "SELECT * FROM hnsw_create_index('t', 'v', 'metric=l2, m=6, ef_construction=20, name=i')";
    command(&world, create, &world.counts.built).await;
    let mut tasks = Vec::new();
    for session in 0..sessions {
        let world = Arc::clone(&world);
        tasks.push(tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(session);
            while !world.is_over() {
                let ctx = world.session().await;
                for _ in 0..rng.random_range(1..5) {
                    world.question(&ctx, &mut rng).await;
                }
            }
        }));
    }
    let begun = Instant::now();
    let is_time_left = move || begun.elapsed().as_secs_f64() < seconds;
    let others = Arc::clone(&world);
    tasks.push(tokio::spawn(async move {
        let mut rng = StdRng::seed_from_u64(99);
        for version in 1.. {
            if others.is_over() {
                break;
            }
            // On a busy machine no question is asked twice between two replacements.
            if is_time_left() {
                others.replace(rng.random_range(0..FILES), version % 1000);
                others.counts.replaced.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(200..800))).await;
        }
    }));
    for (sql, pause) in [
        (create, 30),
        ("SELECT * FROM hnsw_refresh('t')", 70),
        ("DROP INDEX IF EXISTS i ON t", 400),
    ] {
        let world = Arc::clone(&world);
        tasks.push(tokio::spawn(async move {
            while !world.is_over() {
                let counts = &world.counts;
                let count = if pause == 400 {
                    &counts.dropped
                } else {
                    &counts.built
                };
                command(&world, sql, count).await;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }));
    }
    let mut footprints = Vec::new();
    let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let nothing_yet = || read(&world.counts.checked) == 0 || read(&world.counts.indexed) == 0;
    while is_time_left() || (nothing_yet() && begun.elapsed() < Duration::from_secs(60)) {
        tokio::time::sleep(Duration::from_secs_f64(seconds / 20.0)).await;
        if tasks.iter().any(tokio::task::JoinHandle::is_finished) {
            break; // a task panicked
        }
        footprints.extend(footprint());
    }
    world.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await
            .expect("no wrong answer and no error but the stated ones");
    }
    println!("{sessions} sessions, {seconds} s: {:?}", world.counts);
    println!("bytes and handles over time: {footprints:?}");
    let counts = &world.counts;
    assert!(
        read(&counts.checked) > 0 && read(&counts.indexed) > 0,
        "{counts:?}"
    );
    let told: usize = counts.told.iter().map(read).sum();
    assert!(told < read(&counts.queries), "{counts:?}");
    // A third in, everything has been used at least once.
    if seconds >= 60.0
        && let Some((third, last)) = footprints.get(footprints.len() / 3).zip(footprints.last())
    {
        assert!(last.0 < third.0 + third.0 / 2, "memory grows: {footprints:?}");
        assert!(last.1 < third.1 + 64, "file handles are leaked: {footprints:?}");
    }
}
