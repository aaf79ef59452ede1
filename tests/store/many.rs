//! Tables of many files: what is not looked up, not listed, not searched, and not built twice.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_hnsw::HnswSessionExt as _;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sample::{names, sidecars, temp};
use crate::server::{Fault, Request, S3};
use crate::table::{parquet, parquet_of, run};

const NEAR: &str = "array_distance(v, [0.1,0.2,0.3,0.4,0.5,0.4,0.3,0.2])";

async fn session(url: &str, partitioned: &str) -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    datafusion_hnsw::register(&ctx).expect("registered");
    create_table(&ctx, url, partitioned).await;
    ctx
}

async fn create_table(ctx: &SessionContext, url: &str, partitioned: &str) {
    let sql = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET {partitioned} LOCATION '{url}'");
    run(ctx, &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_pruned_before_any_sidecar_is_looked_up_and_listed_in_one_request() {
    const PARTITIONS: i64 = 20;
    let server = S3::start();
    let direct = server.client();
    for partition in 0..PARTITIONS {
        for file in 0..2 {
            let path = ObjectPath::from(format!("t/p={partition}/{file}.parquet"));
            let first = partition * 1000 + file * 100;
            let bytes = parquet(first..first + 20);
            direct.put(&path, bytes.into()).await.expect("room");
        }
    }
    let (client, log) = server
        .client_through(Duration::from_secs(20), |_: &Request| Fault::None)
        .await;
    let cache = temp();
    let open = async || {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        datafusion_hnsw::register(&ctx).expect("registered");
        let root = datafusion::execution::object_store::ObjectStoreUrl::parse("s3://bucket").expect("a URL");
        ctx.register_object_store(root.as_ref(), Arc::clone(&client) as _);
        let cache = cache.path().display();
        run(&ctx, &format!("SET hnsw.cache_dir = '{cache}'")).await;
        create_table(&ctx, "s3://bucket/t/", "PARTITIONED BY (p)").await;
        ctx
    };
    run(
        &open().await,
        "CREATE INDEX ON t USING hnsw (v) WITH (metric = 'l2')",
    )
    .await;

    // One partition of twenty: nothing of the others is asked for.
    let ctx = open().await;
    run(&ctx, "SELECT count(*) FROM t WHERE p = '7'").await;
    log.lock().expect("no panic").clear();
    let sql = format!("SELECT id FROM t WHERE p = '7' ORDER BY {NEAR} LIMIT 3");
    let plan = run(&ctx, &format!("EXPLAIN {sql}")).await;
    assert!(plan.contains("files=[2 indexed]"), "{plan}");
    run(&ctx, &sql).await;
    let asked: Vec<_> = log.lock().expect("no panic").clone();
    let sidecars: Vec<_> = asked
        .iter()
        .filter(|request| request.target.contains("hnsw"))
        .collect();
    assert!(!sidecars.is_empty(), "{asked:?}");
    for request in sidecars {
        let target = request.target.replace("%3D", "=").replace("%3d", "=");
        assert!(target.contains("p=7"), "{request:?}");
    }

    // All of them: one listing of the tree.
    let ctx = open().await;
    run(&ctx, "SELECT count(*) FROM t").await;
    log.lock().expect("no panic").clear();
    let sql = format!("SELECT id FROM t ORDER BY {NEAR} LIMIT 3");
    let plan = run(&ctx, &format!("EXPLAIN {sql}")).await;
    assert!(plan.contains("files=[40 indexed]"), "{plan}");
    let lists: Vec<_> = log
        .lock()
        .expect("no panic")
        .iter()
        .filter(|request| request.target.contains("list-type"))
        .cloned()
        .collect();
    assert!(lists.len() <= 2, "{} LISTs: {lists:?}", lists.len());
}

/// Files around far-apart centres, or all alike, with NULLs and zero vectors in some.
fn write_files(dir: &Path, rng: &mut StdRng, files: usize, clustered: bool) {
    let mut id = 0;
    for file in 0..files {
        let centre: Vec<f32> = (0..8).map(|_| rng.random_range(-9.0..9.0)).collect();
        let odd = file % 5 == 4;
        let rows = (0..40).map(|row| {
            id += 1;
            let vector = match (odd, row % 13) {
                (true, 5) => None,
                (true, 7) => Some(vec![0.0; 8]),
                _ => Some(
                    (0..8)
                        .map(|axis| {
                            let spread: f32 = rng.random_range(-1.0..1.0);
                            if clustered {
                                centre[axis] + 0.2 * spread
                            } else {
                                9.0 * spread
                            }
                        })
                        .collect(),
                ),
            };
            (id, vector)
        });
        let bytes = parquet_of(rows.collect::<Vec<_>>());
        std::fs::write(dir.join(format!("{file}.parquet")), bytes).expect("room");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_too_far_are_skipped_and_the_answer_stays_the_same() {
    for clustered in [true, false] {
        let dir = temp();
        let mut rng = StdRng::seed_from_u64(7);
        write_files(dir.path(), &mut rng, 25, clustered);
        let url = format!("file://{}/", dir.path().display());
        let ctx = session(&url, "").await;
        for metric in ["l2", "cosine", "ip"] {
            let sql = format!("CREATE INDEX ON t USING hnsw (v) WITH (metric = '{metric}')");
            run(&ctx, &sql).await;
        }
        // Some files have no index: they are compared row by row, and bound the others.
        std::fs::remove_file(sidecars(dir.path()).join("3.parquet.v.l2.hnsw")).expect("built");
        let off = session(&url, "").await;
        run(&off, "SET hnsw.mode = 'off'").await;
        run(&ctx, "SET hnsw.ef_search = 1000").await;
        let mut skipped = 0;
        for round in 0..12 {
            let query: Vec<f32> = (0..8).map(|_| rng.random_range(-9.0..9.0)).collect();
            let [filter, ties, k] = [
                ["", "WHERE id % 3 = 1"][round % 2],
                ["", ", id"][round / 2 % 2],
                ["3", "17"][round / 4 % 2],
            ];
            for (distance, order) in [
                (format!("array_distance(v, {query:?})"), ""),
                (format!("cosine_distance(v, {query:?})"), "NULLS FIRST"),
                (format!("cosine_distance(v, {query:?})"), ""),
                (format!("inner_product(v, {query:?})"), "DESC NULLS LAST"),
            ] {
                // Of rows at one distance any may come, unless the id decides.
                let columns = if ties.is_empty() { "d" } else { "d, id" };
                let sql = format!(
                    "SELECT {columns} FROM (SELECT id, {distance} AS d FROM t {filter}) AS near \
                     ORDER BY d {order}{ties} LIMIT {k}"
                );
                let analysed = run(&ctx, &format!("EXPLAIN ANALYZE {sql}")).await;
                skipped += metric_of(&analysed, "files_skipped");
                assert_eq!(run(&ctx, &sql).await, run(&off, &sql).await, "{sql}");
            }
        }
        println!("clustered {clustered}: {skipped} files skipped in 48 queries of 25 files");
        assert_eq!(skipped > 200, clustered, "{skipped}");
        // The join, too: each left row has its own bound.
        let sql = "SELECT _distance FROM vector_join('t', 'v', 't', 'v', 2, 'metric=l2') ORDER BY 1";
        let with = run(&ctx, sql).await;
        run(&ctx, "SET hnsw.mode = 'exact'").await;
        assert_eq!(with, run(&ctx, sql).await);
    }
}

fn metric_of(plan: &str, name: &str) -> usize {
    let at = plan.find(&format!("{name}="));
    let at = at.unwrap_or_else(|| panic!("no {name} in {plan}")) + name.len() + 1;
    let digits: String = plan[at..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_many_files_tells_how_many_are_done_and_builds_only_what_is_missing() {
    let dir = temp();
    for file in 0..12 {
        let path = dir.path().join(format!("{file:02}.parquet"));
        std::fs::write(path, parquet(file * 100..file * 100 + 50)).expect("room");
    }
    let ctx = session(&format!("file://{}/", dir.path().display()), "").await;
    let build = async || {
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        let builder = datafusion_hnsw::IndexBuilder::new("t", "v").if_not_exists();
        let builder = builder.on_progress(move |at| {
            assert!(at.files_done < at.files && at.file <= at.files, "{at:?}");
            seen.fetch_max(at.files_done, Ordering::Relaxed);
            std::ops::ControlFlow::Continue(())
        });
        let summary = builder.build(&ctx).await.expect("built");
        (
            summary.files_built,
            summary.files_kept,
            most.load(Ordering::Relaxed),
        )
    };
    let (built, kept, most) = build().await;
    assert_eq!((built, kept), (12, 0));
    assert!(most >= 8, "{most}");
    std::fs::remove_file(sidecars(dir.path()).join("03.parquet.v.cosine.hnsw")).expect("built");
    assert_eq!(build().await, (1, 11, 0));
    assert_eq!(build().await, (0, 12, 0));
}

#[test]
fn a_build_that_was_killed_goes_on_where_it_was() {
    let dir = temp();
    const FILES: i64 = 60;
    for file in 0..FILES {
        let path = dir.path().join(format!("{file:02}.parquet"));
        std::fs::write(path, parquet(file * 1000..file * 1000 + 400)).expect("room");
    }
    let mut child = crate::child::start("sql create", dir.path());
    let published = || match std::fs::read_dir(sidecars(dir.path())) {
        Ok(_) => names(sidecars(dir.path()))
            .into_iter()
            .filter(|name| !name.starts_with('.'))
            .count(),
        Err(_) => 0,
    };
    let begun = Instant::now();
    while published() < 10 && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().expect("ours");
    child.wait().expect("ours");
    let there = published();
    assert!((10..60).contains(&there), "{there}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let summary = runtime.block_on(async {
        let ctx = session(&format!("file://{}/", dir.path().display()), "").await;
        let again =
            ctx.hnsw_sql("SELECT files_built, files_kept FROM hnsw_create_index('t', 'v', 'metric=l2')");
        let batches = again.await.expect("planned").collect().await.expect("built");
        pretty_format_batches(&batches).expect("text").to_string()
    });
    println!("killed with {there} of {FILES} sidecars; then:\n{summary}");
    let numbers: Vec<usize> = summary
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    assert_eq!(numbers, [60 - there, there]);
    let left: Vec<_> = names(sidecars(dir.path()))
        .into_iter()
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
