//! The same answer, index on or off.
//!
//! Tables, queries and settings are generated; each query is answered by a session without the
//! extension, and by one with it in each of its modes with `ef_search` above the number of rows.
//! Schema, number of rows, order, every value and every bit of a distance must agree; rows may
//! differ only where SQL leaves the choice, among equal sort keys at the edge of a LIMIT.
//!
//! `HNSW_PROPERTY_CASES` says how many queries to run and `HNSW_PROPERTY_SEED` where to start; a
//! failure prints the seed and the SQL that repeat it.

use std::env;
use std::fmt::Write as _;

use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::compare::{Answer, answer, ranked, same};
use crate::query::{Expected, Query};
use crate::world::World;

/// Queries of one world: its files and indexes are made once for all of them.
const QUERIES_PER_WORLD: u64 = 10;
/// Queries that CI runs.
const CASES: u64 = 400;
const SEED: u64 = 20_261_122;
/// Failures that are printed before the run gives up.
const FAILURES: usize = 12;

const MODES: [&str; 3] = ["off", "exact", "auto"];

/// The error with which DataFusion refuses its own plan of `ORDER BY -f(x) DESC`, or `abs(f(x))`, over several partitions.
const DATAFUSIONS_OWN: &str = "SanityCheckPlan";

/// The error of `10 / 0`.
const DIVIDE_BY_ZERO: &str = "Divide by zero";

/// What DataFusion says of a distance between a large list and a list, which has an answer with the extension, in every
/// mode.
const LIST_TYPES: &str = "array_distance does not support types";

#[derive(Default)]
struct Report {
    queries: u64,
    errors: u64,
    /// Queries that DataFusion's own defect refuses over our scan and not over its own.
    refused: u64,
    through_the_index: u64,
    ours: u64,
    failures: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_gives_the_same_answer_with_and_without_the_index() {
    let setting = |name, default| {
        env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    };
    let (cases, seed) = (
        setting("HNSW_PROPERTY_CASES", CASES),
        setting("HNSW_PROPERTY_SEED", SEED),
    );
    let worlds = cases.div_ceil(QUERIES_PER_WORLD);
    let mut total = Report::default();
    let runs = (0..worlds).map(|world| {
        let queries = QUERIES_PER_WORLD.min(cases - world * QUERIES_PER_WORLD);
        tokio::spawn(run_world(seed + world, queries))
    });
    let mut runs = futures::stream::iter(runs).buffered(2);
    while let Some(report) = runs.next().await {
        let report = report.expect("a world does not panic outside its queries");
        total.queries += report.queries;
        total.errors += report.errors;
        total.refused += report.refused;
        total.through_the_index += report.through_the_index;
        total.ours += report.ours;
        total.failures.extend(report.failures);
        if total.failures.len() >= FAILURES {
            break;
        }
    }
    println!(
        "{} queries from seed {seed}: {} answered through an index, {} by our scan, {} errors without the extension",
        total.queries, total.through_the_index, total.ours, total.errors
    );
    assert!(
        total.failures.is_empty(),
        "{} failures\n{}",
        total.failures.len(),
        total.failures.join("\n")
    );
    assert_eq!(
        total.refused, 0,
        "DataFusion's check refused plans over our scan that it makes over its own"
    );
    // The comparison would be idle if no query took the road that it is about.
    assert!(
        total.queries < 100 || total.ours * 4 > total.queries,
        "too few queries used the extension"
    );
    assert!(
        total.queries < 100 || total.errors * 4 < total.queries,
        "too many queries were errors"
    );
}

/// One world and some queries over it.
async fn run_world(seed: u64, queries: u64) -> Report {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::generate(&mut rng).await;
    let mut report = Report::default();
    let (plain, mut ours) = (world.plain().await, world.ours().await);
    let mut trouble = world.trouble.clone().into_iter().collect::<Vec<_>>();
    for number in 0..queries {
        let settings = settings(&mut rng);
        let query = Query::generate(&mut rng, &world, number);
        report.queries += 1;
        // A session is used again, with what it keeps from the queries before.
        if rng.random_bool(0.2) {
            ours = world.ours().await;
        }
        if let Err(difference) = run_query(&world, (&plain, &ours), &settings, &query, &mut report).await {
            trouble.push(format!(
                "{}\n{}\n{difference}",
                settings.join(";\n"),
                query.describe()
            ));
        }
    }
    for difference in trouble {
        report.failures.push(format!(
            "---- HNSW_PROPERTY_SEED={seed} HNSW_PROPERTY_CASES={QUERIES_PER_WORLD}\n{}\n{difference}",
            world.description
        ));
    }
    report
}

/// Settings of DataFusion that change how a plan is run, and never its answer.
fn settings(rng: &mut StdRng) -> Vec<String> {
    let mut settings = vec![
        format!(
            "SET datafusion.execution.target_partitions = {}",
            [1, 2, 4][rng.random_range(0..3)]
        ),
        format!(
            "SET datafusion.execution.batch_size = {}",
            [1, 3, 20, 8192][rng.random_range(0..4)]
        ),
    ];
    for (name, likely) in [
        ("datafusion.execution.parquet.pushdown_filters", 0.5),
        ("datafusion.execution.parquet.reorder_filters", 0.2),
        ("datafusion.execution.parquet.enable_page_index", 0.8),
        ("datafusion.execution.collect_statistics", 0.7),
        ("datafusion.optimizer.repartition_file_scans", 0.7),
        ("datafusion.optimizer.enable_dynamic_filter_pushdown", 0.7),
    ] {
        settings.push(format!("SET {name} = {}", rng.random_bool(likely)));
    }
    settings.push(format!(
        "SET datafusion.optimizer.repartition_file_min_size = {}",
        [0, 10_485_760][rng.random_range(0..2)]
    ));
    settings
}

/// Compares every mode with the session that knows nothing of us.
async fn run_query(
    world: &World,
    (plain, ours): (&SessionContext, &SessionContext),
    settings: &[String],
    query: &Query,
    report: &mut Report,
) -> Result<(), String> {
    for ctx in [plain, ours] {
        for statement in settings {
            ctx.hnsw_sql(statement).await.expect(statement);
        }
    }
    let mut expected = answer(plain, &query.for_plain()).await;
    let refused = |answer: &Result<Answer, String>| {
        answer
            .as_ref()
            .is_err_and(|error| error.contains(DATAFUSIONS_OWN))
    };
    let plain_refused = refused(&expected);
    if plain_refused {
        set(plain, "SET datafusion.execution.target_partitions = 1").await;
        expected = answer(plain, &query.for_plain()).await;
    }
    // Whether a row is divided by zero depends on which rows and conditions a plan looks at first. So an answer is right
    // where DataFusion's own plan fails of it; an error where that gives an answer is not.
    let divides =
        |answer: &Result<Answer, String>| answer.as_ref().is_err_and(|error| error.contains(DIVIDE_BY_ZERO));
    let may_fail = divides(&expected);
    if may_fail {
        expected = answer(plain, &query.without_division_by_zero().for_plain()).await;
    }
    let all = match &query.expected {
        Expected::Ranked { all, .. } => {
            let all = query.with_sql(all).without_division_by_zero();
            Some(answer(plain, &all).await)
        }
        Expected::Same { .. } => None,
    };
    report.errors += u64::from(expected.is_err());
    set(ours, "SET hnsw.ef_search = 1000000").await;
    let mut differences = String::new();
    for mode in MODES {
        set(ours, &format!("SET hnsw.mode = '{mode}'")).await;
        let found = answer(ours, query).await;
        if refused(&found) {
            report.refused += u64::from(!plain_refused);
            continue;
        }
        if may_fail && divides(&found) {
            continue;
        }
        if expected.as_ref().is_err_and(|error| error.contains(LIST_TYPES)) && found.is_ok() {
            continue;
        }
        if let Err(difference) = compare(query, &expected, all.as_ref(), &found) {
            let plan = explain(ours, query).await;
            write!(differences, "mode {mode}: {difference}\n{plan}\n").expect("a string can be written to");
        } else if mode == "auto" && found.is_ok() {
            let plan = explain(ours, query).await;
            report.ours += u64::from(plan.contains("VectorScanExec"));
            report.through_the_index += u64::from(world.indexed && plan.contains("VectorScanExec"));
        }
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differences)
    }
}

async fn set(ctx: &SessionContext, statement: &str) {
    ctx.hnsw_sql(statement).await.expect(statement);
}

async fn explain(ctx: &SessionContext, query: &Query) -> String {
    if query.sql.starts_with("EXECUTE") {
        return String::new();
    }
    match answer(ctx, &query.with_sql(&format!("EXPLAIN {}", query.sql))).await {
        Ok(plan) => plan.rows.concat().join("\n"),
        Err(error) => error,
    }
}

fn compare(
    query: &Query,
    expected: &Result<Answer, String>,
    all: Option<&Result<Answer, String>>,
    found: &Result<Answer, String>,
) -> Result<(), String> {
    let (expected, found) = match (expected, found) {
        // DataFusion's own panic, of `DISTINCT ON` over some plans, is not ours.
        (Err(expected), Err(error)) if error.contains("panicked") && !expected.contains("panicked") => {
            return Err(error.clone());
        }
        (Err(_), Err(_)) => return Ok(()),
        // Of `EXECUTE p([1, 2.5, ...])`: the folded array is of one type before it gets there.
        (Err(error), Ok(_)) if error.contains("panicked") => return Ok(()),
        (Err(error), Ok(_)) => return Err(format!("an answer where DataFusion gives the error {error}")),
        (Ok(_), Err(error)) => return Err(format!("the error {error}")),
        (Ok(expected), Ok(found)) => (expected, found),
    };
    if found.schema != expected.schema {
        return Err(format!("schema {}\ninstead of {}", found.schema, expected.schema));
    }
    match (&query.expected, all) {
        (
            Expected::Ranked {
                keys, limit, offset, ..
            },
            Some(Ok(all)),
        ) => ranked(all, *keys, *offset, *limit, found),
        // The whole ranking is an error that a small LIMIT does not reach.
        (Expected::Ranked { .. }, _) => same(expected, found, true),
        (Expected::Same { ordered }, _) => same(expected, found, *ordered),
    }
}
