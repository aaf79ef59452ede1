//! What a query may take: memory that the pool grants, and time until it is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_hnsw::HnswSessionExt as _;
use tokio::runtime::{Builder, Runtime};

use crate::sample::{TempDir, names, sidecars, temp};
use crate::server::{Fault, Request, S3};
use crate::table::{Table, parquet, run};

const QUERY: &str = "array_distance(v, [0.1,0.2,0.3,0.4,0.5,0.4,0.3,0.2])";

/// A directory with an indexed file `t` of so many rows, and `u`, one without an index.
async fn files(rows: i64, others: i64) -> TempDir {
    let dir = temp();
    std::fs::write(dir.path().join("t.parquet"), parquet(0..rows)).expect("room");
    std::fs::write(dir.path().join("u.parquet"), parquet(0..others)).expect("room");
    let ctx = session(&dir, Arc::new(UnboundedMemoryPool::default())).await;
    run(
        &ctx,
        "CREATE INDEX ON t USING hnsw (v) WITH (metric = 'l2', m = 4, ef_construction = 8)",
    )
    .await;
    dir
}

async fn session(dir: &TempDir, pool: Arc<dyn MemoryPool>) -> SessionContext {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc();
    let config = SessionConfig::new().with_target_partitions(2);
    let ctx = SessionContext::new_with_config_rt(config, runtime.expect("a runtime"));
    datafusion_hnsw::register(&ctx).expect("registered");
    for table in ["t", "u"] {
        let path = dir.path().join(format!("{table}.parquet"));
        let sql = format!(
            "CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}'",
            path.display()
        );
        run(&ctx, &sql).await;
    }
    ctx
}

async fn ask(ctx: &SessionContext, sql: &str) -> Result<usize, String> {
    let answer = async { ctx.hnsw_sql(sql).await?.collect().await };
    let batches = answer.await.map_err(|error| error.to_string())?;
    Ok(batches.iter().map(|batch| batch.num_rows()).sum())
}

/// Tasks of a query that failed end a moment after it.
async fn settles(pool: &Arc<dyn MemoryPool>, at_most: usize, what: &str) {
    let begun = Instant::now();
    while pool.reserved() > at_most {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{what}: {} bytes are still taken",
            pool.reserved()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_pool_gives_its_usual_error_and_gets_everything_back() {
    let dir = files(20_000, 2000).await;
    // The work, the bytes that it cannot do with, some that it can, and who says so.
    let near = format!("SELECT id FROM t ORDER BY {QUERY}");
    let filtered = format!("SELECT id FROM t WHERE id % 3 = 1 ORDER BY {QUERY} LIMIT 3");
    let join = "SELECT count(*) FROM vector_join('u', 'v', 't', 'v', 3, 'metric=l2')";
    let cases = [
        ("auto", format!("{near} LIMIT 5000"), 200_000, "vector search"),
        ("auto", filtered.clone(), 1500, "filter bitmaps"),
        ("exact", format!("{near} LIMIT 3"), 100_000, "vector search"),
        ("auto", join.to_owned(), 50_000, "vector search"),
        ("exact", join.to_owned(), 100_000, "vector search"),
    ];
    for (mode, sql, too_few, who) in cases {
        for (bytes, enough) in [(too_few, false), (100 << 20, true)] {
            let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
            let ctx = session(&dir, Arc::clone(&pool)).await;
            run(&ctx, &format!("SET hnsw.mode = '{mode}'")).await;
            let answer = ask(&ctx, &sql).await;
            match &answer {
                Ok(_) => assert!(enough, "{mode} {sql}: {bytes} bytes were enough"),
                Err(error) => assert!(
                    !enough && error.contains("Resources exhausted") && error.contains(who),
                    "{mode} {sql}: {error}"
                ),
            }
            // What is kept for later is at most half of the pool; the rest is given back, and in the end all of it.
            settles(&pool, bytes / 2, &sql).await;
            assert_eq!(ask(&ctx, &sql).await.is_ok(), answer.is_ok());
            settles(&pool, bytes / 2, &sql).await;
            drop(ctx);
            settles(&pool, 0, &sql).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bitmaps_that_are_kept_are_registered_and_give_way() {
    let dir = files(20_000, 2000).await;
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1_600_000));
    let ctx = session(&dir, Arc::clone(&pool)).await;
    let mut most = 0;
    for residue in 0..400 {
        let sql = format!("SELECT id FROM t WHERE id % 500 = {residue} ORDER BY {QUERY} LIMIT 1");
        assert_eq!(ask(&ctx, &sql).await, Ok(1));
        most = most.max(pool.reserved());
    }
    // 2,756 bytes each: without a bound they would be 1.1 million.
    assert!((600_000..=800_000).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_not_built_without_memory_and_small_files_wait_for_each_other() {
    let dir = temp();
    std::fs::create_dir(dir.path().join("t.parquet")).expect("a directory");
    std::fs::write(dir.path().join("u.parquet"), parquet(0..1)).expect("room");
    for file in 0..6 {
        let path = dir.path().join(format!("t.parquet/{file}.parquet"));
        std::fs::write(path, parquet(file * 1000..file * 1000 + 1000)).expect("room");
    }
    // A file takes 552,000 bytes: one at a time fits, two do not.
    let create = "CREATE INDEX ON t USING hnsw (v) WITH (metric = 'l2', threads = 2)";
    let few = session(&dir, Arc::new(GreedyMemoryPool::new(300_000))).await;
    let error = ask(&few, create).await.expect_err("too little");
    assert!(
        error.contains("Resources exhausted") && error.contains("CREATE INDEX"),
        "{error}"
    );
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(800_000));
    let enough = session(&dir, Arc::clone(&pool)).await;
    assert_eq!(ask(&enough, create).await, Ok(1));
    let sidecars = names(sidecars(&dir.path().join("t.parquet")));
    assert_eq!(sidecars.len(), 6, "{sidecars:?}");
}

/// How long after its query was dropped work went on, in the best of a few attempts, or of many on a machine that is
/// busy with something else and makes most of them late. It is dropped `after` so many milliseconds or a little more.
fn stops_soon(
    name: &str,
    ctx: &SessionContext,
    sql: &str,
    after: u64,
    runtime: &Runtime,
    pool: &Arc<dyn MemoryPool>,
) {
    let handle = runtime.handle();
    // Footers stay in their cache; everything else must come back.
    runtime.block_on(run(ctx, "SELECT * FROM hnsw_indexes()"));
    let kept = pool.reserved();
    let busy = |tasks| handle.metrics().num_alive_tasks() > tasks || pool.reserved() > kept;
    let mut best = Duration::MAX;
    let mut caught = 0;
    for attempt in 0..300_u64 {
        // What is remembered would spare the work.
        runtime.block_on(run(ctx, "SET hnsw.filter_cache_size = 0"));
        let tasks = handle.metrics().num_alive_tasks();
        let question = {
            let (ctx, sql) = (ctx.clone(), sql.to_owned());
            runtime.spawn(async move { ask(&ctx, &sql).await })
        };
        std::thread::sleep(Duration::from_millis(after + attempt % 10 * 2));
        let dropped = Instant::now();
        question.abort();
        let ended = runtime.block_on(question);
        match ended {
            Ok(answer) => {
                assert!(answer.is_ok(), "{name}: {answer:?}");
                continue;
            }
            Err(error) => assert!(error.is_cancelled(), "{name}: {error}"),
        }
        while busy(tasks) && dropped.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_micros(200));
        }
        assert!(!busy(tasks), "{name}: something was leaked");
        caught += 1;
        best = best.min(dropped.elapsed());
        if caught >= 5 && best < Duration::from_millis(50) {
            break;
        }
    }
    println!("{name}: {caught} queries dropped, work ended {best:?} later");
    assert!(caught > 0, "{name}: always done before it could be dropped");
    assert!(best < Duration::from_millis(50), "{name}: {best:?}");
}

#[test]
fn a_dropped_query_stops_its_work_and_leaks_nothing() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = runtime.block_on(files(40_000, 300_000));
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let ctx = runtime.block_on(async {
        let ctx = session(&dir, Arc::clone(&pool)).await;
        run(&ctx, "SET hnsw.metric = 'l2'").await;
        run(&ctx, "SET hnsw.column_cache_size = 0").await;
        run(
            &ctx,
            "CREATE INDEX ON u USING hnsw (v) WITH (metric = 'l2', m = 4, ef_construction = 8)",
        )
        .await;
        ctx
    });
    let join = "SELECT sum(id) FROM vector_join('u', 'v', 't', 'v', 3, 'metric=l2')";
    let near = format!("SELECT id FROM u ORDER BY {QUERY} LIMIT 10");
    let costly: Vec<_> = (1..40).map(|n| format!("sin(id * {n}.5)")).collect();
    let filtered = format!(
        "SELECT id FROM t WHERE {} > 3 ORDER BY {QUERY} LIMIT 10",
        costly.join(" + ")
    );
    let create = "SELECT * FROM hnsw_create_index('u', 'v', 'metric=cosine')".to_owned();
    for (name, mode, ef, sql, after) in [
        ("exact scan", "exact", 64, near.as_str(), 5),
        ("bitmap", "auto", 64, filtered.as_str(), 3),
        ("join, exact", "exact", 64, join, 30),
        ("join, index", "auto", 2000, join, 30),
        ("join, exhaustive", "auto", 1_000_000, join, 30),
        ("one long search", "auto", 290_000, near.as_str(), 20),
        ("create index, reading", "auto", 64, create.as_str(), 5),
        ("create index, linking", "auto", 64, create.as_str(), 400),
    ] {
        runtime.block_on(async {
            run(&ctx, &format!("SET hnsw.mode = '{mode}'")).await;
            run(&ctx, &format!("SET hnsw.ef_search = {ef}")).await;
        });
        stops_soon(name, &ctx, sql, after, &runtime, &pool);
    }
    let left: Vec<_> = names(sidecars(dir.path()))
        .into_iter()
        .filter(|name| name.starts_with('.') || name.contains("cosine"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_dropped_fetch_of_a_sidecar_stops_and_leaves_nothing_in_the_cache() {
    let network = Runtime::new().expect("a runtime");
    let server = S3::start();
    let direct = Table::s3(server.client());
    network.block_on(async {
        direct.put("a.parquet", parquet(0..500)).await;
        direct.create_index().await;
    });
    // The sidecar's bytes never come. The directory of sidecars has such a name too, but it is listed.
    let is_fetch = |request: &Request| {
        request.method == "GET" && request.target.contains(".hnsw") && !request.target.contains("list-type")
    };
    let plan = move |request: &Request| {
        if is_fetch(request) {
            Fault::Hang
        } else {
            Fault::None
        }
    };
    let (client, log) = network.block_on(server.client_through(Duration::from_secs(60), plan));
    let table = Arc::new(Table::s3(client));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let ctx = runtime.block_on(table.session());
    let sql = format!("SELECT id FROM t ORDER BY {QUERY} LIMIT 10");
    let question = runtime.spawn(async move { ask(&ctx, &sql).await });
    let hangs = || {
        let log = log.lock().expect("no panic");
        log.iter().any(is_fetch)
    };
    let begun = Instant::now();
    while !hangs() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the sidecar is not asked for"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let unfinished = || {
        let copies = table.cache.path().join("sidecars-1");
        let names = if copies.is_dir() { names(copies) } else { vec![] };
        names.iter().any(|name| name.ends_with(".part"))
    };
    assert!(unfinished(), "it is being fetched");
    let dropped = Instant::now();
    question.abort();
    assert!(
        runtime
            .block_on(question)
            .is_err_and(|error| error.is_cancelled())
    );
    while unfinished() && dropped.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_micros(200));
    }
    println!("remote fetch: ended {:?} after it was dropped", dropped.elapsed());
    assert!(
        dropped.elapsed() < Duration::from_millis(50),
        "{:?}",
        dropped.elapsed()
    );
    // Others can fetch it at once.
    let again = Table::s3(server.client());
    assert_eq!(network.block_on(again.answers()), "1 indexed");
}
