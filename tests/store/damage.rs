//! Damage by chance: flipped bits, overwritten bytes, zeroed pages, cut ends, in every section of a sidecar. No answer is
//! wrong and none is an error; and the damage is told of.
//!
//! `HNSW_DAMAGE_CASES` sets how many kinds of damage are tried, `HNSW_DAMAGE_SEED` with which numbers.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use datafusion::arrow::array::RecordBatch;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt as _;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::broken;
use crate::table::{DIM, Table, number, parquet_of, run};

/// Enough for clusters, which few rows do without.
const ROWS: i64 = 570;

/// Rows without a vector, and with one that has no cosine distance.
fn rows() -> impl Iterator<Item = (i64, Option<Vec<f32>>)> {
    (0..ROWS).map(|row| {
        let vector = match row % 50 {
            7 => None,
            9 => Some(vec![0.0; DIM as usize]),
            // Some are the same.
            11 => Some((0..DIM).map(|axis| number(row % 100, axis)).collect()),
            _ => Some((0..DIM).map(|axis| number(row, axis)).collect()),
        };
        (row, vector)
    })
}

const QUERY: &str = "[0.1,0.2,0.3,0.4,0.5,0.4,0.3,0.2]";

/// Searches of every kind. The first gives vectors from the sidecar.
fn queries() -> Vec<String> {
    let distance = format!("array_distance(v, {QUERY})");
    let rank = "row_number() OVER (PARTITION BY a.id ORDER BY array_distance(a.v, b.v), b.id)";
    vec![
        format!("SELECT id, v, {distance} AS d FROM t ORDER BY d, id LIMIT 10"),
        format!("SELECT id, {distance} AS d, v FROM t WHERE id % 3 = 1 ORDER BY d, id LIMIT 7"),
        format!("SELECT id, {distance} AS d, v FROM t ORDER BY d NULLS FIRST, id LIMIT 20"),
        format!(
            "SELECT id, {distance} AS d, v FROM t ORDER BY d, id LIMIT {}",
            ROWS - 3
        ),
        format!("SELECT id, v, {distance} AS d FROM t WHERE {distance} < 0.9 ORDER BY d, id LIMIT 400"),
        format!(
            "SELECT * FROM (SELECT a.id AS q, b.id, b.v, {rank} AS r FROM (SELECT * FROM t WHERE id < 5) a \
             CROSS JOIN t b) WHERE r <= 4 ORDER BY q, r"
        ),
    ]
}

/// Functions that search, which no other mode answers; their answers from the whole sidecar count.
fn functions() -> Vec<String> {
    vec![
        format!("SELECT id, v, _distance FROM vector_search('t', 'v', {QUERY}, 8, 'metric=l2, ef_search=1000') ORDER BY _distance, id"),
        "SELECT id, t_id, t_v, _distance FROM vector_join('q', 'v', 't', 'v', 3, 'metric=l2') ORDER BY id, _distance, t_id".to_owned(),
    ]
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Where each section lies in a whole sidecar, its header and footer included.
fn sections(good: &[u8]) -> Vec<(String, Range<usize>)> {
    let footer = broken::footer_of(good);
    let blobs = footer["blobs"].as_array().expect("blobs").iter();
    let mut found: Vec<_> = blobs
        .map(|blob| {
            let number = |name: &str| usize::try_from(blob[name].as_u64().expect("a number")).expect("small");
            let kind = blob["type"].as_str().expect("text");
            let name = kind
                .trim_start_matches("datafusion-hnsw-")
                .trim_end_matches("-v1");
            let begin = number("offset");
            (name.to_owned(), begin..begin + number("length"))
        })
        .filter(|(_, place)| !place.is_empty())
        .collect();
    let end = found.last().expect("some").1.end;
    found.push(("start".to_owned(), 0..4));
    found.push(("footer".to_owned(), end..good.len()));
    found
}

/// The sidecar with damage of some kind in one of its sections, never the same as it was.
fn damaged(good: &[u8], place: &Range<usize>, random: &mut StdRng) -> Vec<u8> {
    loop {
        let mut bytes = good.to_vec();
        let at = random.random_range(place.clone());
        match random.random_range(0..8) {
            0..4 => bytes[at] ^= 1 << random.random_range(0..8),
            4 | 5 => {
                let end = (at + random.random_range(2..65)).min(place.end);
                random.fill(&mut bytes[at..end]);
            }
            6 => {
                let page = at / 4096 * 4096;
                let end = (page + 4096).min(bytes.len());
                bytes[page..end].fill(0);
            }
            _ => bytes.truncate(at),
        }
        if bytes != good {
            return bytes;
        }
    }
}

/// A table with one file, its index, and what every query has to answer.
struct Damaged {
    table: Table,
    /// The sidecar, or its local copy.
    path: PathBuf,
    good: Vec<u8>,
    expected: BTreeMap<String, String>,
}

impl Damaged {
    async fn new(table: Table) -> Self {
        table.put("a.parquet", parquet_of(rows())).await;
        table.create_index().await;
        let ctx = session(&table).await;
        run(&ctx, "SET hnsw.mode = 'off'").await;
        let mut expected = BTreeMap::new();
        for query in queries() {
            expected.insert(query.clone(), run(&ctx, &query).await);
        }
        let ctx = session(&table).await;
        for query in functions() {
            expected.insert(query.clone(), run(&ctx, &query).await);
        }
        let path = table.sidecar_file("a.parquet.v.l2.hnsw");
        let good = fs::read(&path).expect("it was used");
        Self {
            table,
            path,
            good,
            expected,
        }
    }

    async fn ask(&self, ctx: &SessionContext, query: &str, what: &str) {
        let answer = async { ctx.hnsw_sql(query).await?.collect().await };
        let batches: Vec<RecordBatch> = answer
            .await
            .unwrap_or_else(|error| panic!("{what}: {query}: {error}"));
        let text = datafusion::arrow::util::pretty::pretty_format_batches(&batches).expect("text");
        let plan = run(ctx, &format!("EXPLAIN {query}")).await;
        assert!(
            text.to_string() == self.expected[query],
            "{what}: {query}\n{plan}\n{text}\n{}",
            self.expected[query]
        );
    }

    /// Puts bytes in the place of the sidecar, as others replace files: another inode under the same name.
    fn replace(&self, bytes: &[u8]) {
        let new = self.path.with_extension("new");
        fs::write(&new, bytes).expect("room");
        fs::rename(new, &self.path).expect("one directory");
    }
}

/// Writes to the file itself. Its time differs even if the file system's clock stands still.
fn overwrite(path: &Path, bytes: &[u8], tick: u64) {
    fs::write(path, bytes).expect("room");
    let file = fs::File::options().write(true).open(path).expect("ours");
    let time = SystemTime::now() + Duration::from_millis(tick);
    file.set_modified(time).expect("ours");
}

async fn session(table: &Table) -> SessionContext {
    let ctx = table.session().await;
    run(&ctx, "SET hnsw.ef_search = 1000").await;
    let vector = (0..DIM)
        .map(|axis| number(3, axis).to_string())
        .collect::<Vec<_>>()
        .join(",");
    let queries =
        format!("CREATE VIEW q AS SELECT id, v FROM t WHERE id < 3 OR array_distance(v, [{vector}]) < 0.1");
    run(&ctx, &queries).await;
    ctx
}

/// Damages a sidecar in every way, and asks each time.
async fn no_damage_changes_an_answer(table: Table, cases: u64) {
    let damaged_table = Damaged::new(table).await;
    let sections = sections(&damaged_table.good);
    let queries: Vec<String> = damaged_table.expected.keys().cloned().collect();
    let mut random = StdRng::seed_from_u64(from_environment("HNSW_DAMAGE_SEED", 11));
    let long_lived = session(&damaged_table.table).await;
    let begun = Instant::now();
    for case in 0..cases {
        let (name, place) = sections.choose(&mut random).expect("some");
        let bytes = damaged(&damaged_table.good, place, &mut random);
        let what = format!("case {case}, in {name}");
        // In a session that knew the sidecar as it was, or in one that sees it for the first time.
        let fresh;
        let ctx = if random.random() {
            overwrite(&damaged_table.path, &bytes, case);
            &long_lived
        } else {
            damaged_table.replace(&bytes);
            fresh = session(&damaged_table.table).await;
            &fresh
        };
        damaged_table
            .ask(ctx, &damaged_table.queries_first(), &what)
            .await;
        damaged_table
            .ask(ctx, queries.choose(&mut random).expect("some"), &what)
            .await;
    }
    println!(
        "{cases} cases in {:?}, sections: {:?}",
        begun.elapsed(),
        sections.iter().map(|s| &s.0).collect::<Vec<_>>()
    );
}

impl Damaged {
    fn queries_first(&self) -> String {
        queries().swap_remove(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_to_a_local_sidecar_changes_an_answer() {
    no_damage_changes_an_answer(Table::local(), from_environment("HNSW_DAMAGE_CASES", 250)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_to_the_copy_of_a_remote_sidecar_changes_an_answer() {
    let store = Arc::new(InMemory::new());
    no_damage_changes_an_answer(Table::s3(store), from_environment("HNSW_DAMAGE_CASES", 250)).await;
}

/// The rows of an answer by themselves: each with the vector and the distance that the table has for it.
async fn true_rows(ctx: &SessionContext) -> BTreeMap<i64, String> {
    let all = format!("SELECT id, v, array_distance(v, {QUERY}) AS d FROM t");
    run(ctx, "SET hnsw.mode = 'off'").await;
    lines(&run(ctx, &all).await)
}

fn lines(table: &str) -> BTreeMap<i64, String> {
    let words = |line: &str| {
        line.split('|')
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    table
        .lines()
        .filter_map(|line| {
            let cells = words(line);
            let id = cells.get(1)?.parse().ok()?;
            Some((id, cells.join(" ")))
        })
        .collect()
}

/// A sidecar too large to be checked first: an answer may miss rows for a moment, but has as many, each with its own
/// vector and distance; soon it is exact, with the reason.
async fn damage_to_a_large_sidecar_is_noticed_soon(change: impl Fn(&[u8]) -> Vec<u8>, cases: u64) {
    let damaged_table = Damaged::new(Table::local()).await;
    let good = change(&damaged_table.good);
    let sections = sections(&good);
    let truth = true_rows(&session(&damaged_table.table).await).await;
    let mut random = StdRng::seed_from_u64(from_environment("HNSW_DAMAGE_SEED", 12));
    let query = damaged_table.queries_first();
    for case in 0..cases {
        let (name, place) = sections.choose(&mut random).expect("some");
        let bytes = damaged(&good, place, &mut random);
        damaged_table.replace(&bytes);
        let ctx = session(&damaged_table.table).await;
        run(&ctx, "SET hnsw.verify_wait = 0").await;
        let answer = lines(&run(&ctx, &query).await);
        assert_eq!(answer.len(), 10, "case {case}, in {name}: {answer:?}");
        for (id, row) in answer {
            assert_eq!(row, truth[&id], "case {case}, in {name}");
        }
        let begun = Instant::now();
        while !run(&ctx, &format!("EXPLAIN {query}")).await.contains("damaged:") {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "case {case}, in {name}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for query in damaged_table.expected.keys() {
            damaged_table
                .ask(&ctx, query, &format!("case {case}, in {name}"))
                .await;
        }
    }
    damaged_table.replace(&good);
    let ctx = session(&damaged_table.table).await;
    run(&ctx, "SET hnsw.verify_wait = 0").await;
    assert!(run(&ctx, &format!("EXPLAIN {query}")).await.contains("1 indexed"));
    damaged_table.ask(&ctx, &query, "whole").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_a_large_sidecar_gives_no_wrong_value_and_is_noticed_soon() {
    let cases = from_environment("HNSW_DAMAGE_CASES", 250) / 4;
    damage_to_a_large_sidecar_is_noticed_soon(<[u8]>::to_vec, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_a_large_sidecar_of_an_earlier_version_gives_no_wrong_value_and_is_noticed_soon() {
    let cases = from_environment("HNSW_DAMAGE_CASES", 250) / 8;
    damage_to_a_large_sidecar_is_noticed_soon(broken::without_row_sums, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_seen_by_every_statement_and_mended_by_refresh_and_create_index() {
    let damaged_table = Damaged::new(Table::local()).await;
    let query = damaged_table.queries_first();
    for (number, (name, place)) in sections(&damaged_table.good).into_iter().enumerate() {
        let mut bytes = damaged_table.good.clone();
        bytes[place.start + place.len() / 2] ^= 0x10;
        damaged_table.replace(&bytes);
        let code = match name.as_str() {
            // A footer that cannot be read is told apart from a file that is none.
            "start" => "damaged:start".to_owned(),
            name => format!("damaged:{name}"),
        };
        let ctx = session(&damaged_table.table).await;
        let indexes = run(&ctx, "SELECT files_fresh, state, reason FROM hnsw_indexes()").await;
        assert!(indexes.contains("| 0           | damaged |"), "{name}: {indexes}");
        assert!(indexes.contains(&code), "{name}: {indexes}");
        let plan = run(&session(&damaged_table.table).await, &format!("EXPLAIN {query}")).await;
        assert!(plan.contains(&format!("1 {code}")), "{name}: {plan}");
        let ctx = session(&damaged_table.table).await;
        let verified = run(&ctx, "SELECT state FROM hnsw_verify('t')").await;
        assert!(verified.contains("damaged"), "{name}: {verified}");
        let (statement, built) = match number % 2 {
            0 => (
                "CREATE INDEX IF NOT EXISTS i ON t USING hnsw (v) WITH (metric = 'l2')",
                "",
            ),
            _ => (
                "SELECT files_built, files_kept FROM hnsw_refresh('t')",
                "| 1           | 0          |",
            ),
        };
        let ctx = session(&damaged_table.table).await;
        let done = run(&ctx, statement).await;
        assert!(done.contains(built), "{name}: {done}");
        let ctx = session(&damaged_table.table).await;
        let plan = run(&ctx, &format!("EXPLAIN {query}")).await;
        assert!(plan.contains("1 indexed"), "{name}: {plan}");
        damaged_table.ask(&ctx, &query, &name).await;
    }
}

/// What was planned while the file was whole runs after it was cut short: with a map, that would end the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_cut_short_under_a_planned_query_ends_nothing() {
    let damaged_table = Damaged::new(Table::local()).await;
    for (load, used) in [("mmap", false), ("memory", true)] {
        damaged_table.replace(&damaged_table.good);
        let ctx = session(&damaged_table.table).await;
        run(&ctx, &format!("SET hnsw.load = '{load}'")).await;
        for query in queries() {
            damaged_table.replace(&damaged_table.good);
            let planned = ctx.sql(&query).await.expect("a query");
            let plan = planned.create_physical_plan().await.expect("a plan");
            let file = fs::File::options()
                .write(true)
                .open(&damaged_table.path)
                .expect("ours");
            file.set_len(4096).expect("shorter");
            let batches = collect(Arc::clone(&plan), ctx.task_ctx())
                .await
                .expect("an answer");
            let text = datafusion::arrow::util::pretty::pretty_format_batches(&batches).expect("text");
            assert_eq!(
                text.to_string(),
                damaged_table.expected[&query],
                "{load}: {query}"
            );
            let line =
                datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(plan.as_ref())
                    .indent(false)
                    .to_string();
            assert_eq!(line.contains("index_fallbacks=0"), used, "{load}: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_in_memory_take_it_from_the_pool_and_are_done_without_where_there_is_none() {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::prelude::SessionConfig;

    let damaged_table = Damaged::new(Table::local()).await;
    let size = damaged_table.good.len();
    let query = damaged_table.queries_first();
    // What is kept may fill half of a pool.
    for (taken, expected) in [(0, "1 indexed"), (2 << 20, "1 no_memory")] {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(4 << 20));
        let other = MemoryConsumer::new("other").register(&pool);
        other.try_grow(taken).expect("it is empty");
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&pool))
            .build_arc();
        let ctx = SessionContext::new_with_config_rt(SessionConfig::new(), runtime.expect("a runtime"));
        damaged_table.table.prepare(&ctx).await;
        run(&ctx, "SET hnsw.ef_search = 1000").await;
        run(&ctx, "SET hnsw.load = 'memory'").await;
        let plan = run(&ctx, &format!("EXPLAIN {query}")).await;
        assert!(plan.contains(expected), "{plan}");
        assert_eq!(
            pool.reserved() >= taken + size,
            expected == "1 indexed",
            "{}",
            pool.reserved()
        );
        damaged_table.ask(&ctx, &query, expected).await;
        // Given back when it is not wanted there any more.
        run(&ctx, "SET hnsw.load = 'mmap'").await;
        damaged_table.ask(&ctx, &query, "mapped").await;
        assert!(run(&ctx, &format!("EXPLAIN {query}")).await.contains("1 indexed"));
        assert!(pool.reserved() < taken + size, "{}", pool.reserved());
    }
    let ctx = session(&damaged_table.table).await;
    let refused = ctx.hnsw_sql("SET hnsw.load = 'disk'").await;
    let refused = match refused {
        Ok(set) => set.collect().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(
        refused
            .expect_err("no such way")
            .to_string()
            .contains("'mmap' or 'memory'")
    );
}
