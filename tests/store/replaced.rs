//! Parquet files replaced or rewritten while a query runs: the answer is that of the file that was listed, or an error
//! that says so; never a row of one file at the place of another's.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt as _;
use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::server::{Fault, Request, S3};
use crate::table::{Table, parquet, run};
use crate::wrapped::{Call, Fate, Wrapped};

/// A store that puts another object in the place of `path` just before its N-th GET, and the GETs until then; none when
/// nothing is to happen.
fn replacing(path: &str, by: Vec<u8>) -> (Arc<Wrapped>, Arc<Mutex<Option<usize>>>) {
    let (inner, path) = (Arc::new(InMemory::new()), Path::from(path));
    let left = Arc::new(Mutex::new(None));
    let (behind, count) = (Arc::clone(&inner), Arc::clone(&left));
    let door = move |call| {
        let mut now = false;
        if matches!(call, Call::Get(asked, _) if asked == path) {
            let mut left = count.lock().expect("no panic");
            now = *left == Some(0);
            *left = left.and_then(|left: usize| left.checked_sub(1));
        }
        let (behind, path, by) = (Arc::clone(&behind), path.clone(), by.clone());
        let replace = async move {
            if now {
                behind.put(&path, by.into()).await.expect("memory");
            }
            Fate::Done
        };
        replace.boxed()
    };
    (Wrapped::new(inner, door), left)
}

const NEAR: &str = "array_distance(v, [0.1,0.2,0.3,0.4,0.5,0.4,0.3,0.2])";

/// Ways to ask for the same ten rows, and the setting of `hnsw.mode`.
fn questions() -> Vec<(&'static str, String)> {
    let near = format!("SELECT id, {NEAR} AS d FROM t");
    vec![
        ("auto", format!("{near} ORDER BY d, id LIMIT 10")),
        ("auto", format!("{near} WHERE id >= 0 ORDER BY d, id LIMIT 10")),
        ("exact", format!("{near} ORDER BY d, id LIMIT 10")),
        (
            "auto",
            "SELECT id, _distance AS d FROM vector_search('t', 'v', [0.1,0.2,0.3,0.4,0.5,0.4,0.3,0.2], 10) \
             ORDER BY d, id"
                .to_owned(),
        ),
    ]
}

async fn session(table: &Table, mode: &str) -> SessionContext {
    let ctx = table.session().await;
    run(&ctx, "SET hnsw.ef_search = 1000").await;
    run(&ctx, "SET hnsw.metric = 'l2'").await;
    run(&ctx, &format!("SET hnsw.mode = '{mode}'")).await;
    ctx
}

async fn ask(ctx: &SessionContext, sql: &str) -> std::result::Result<String, String> {
    let answer = async { ctx.hnsw_sql(sql).await?.collect().await };
    let batches = answer.await.map_err(|error| error.to_string())?;
    Ok(pretty_format_batches(&batches).expect("text").to_string())
}

/// The same rows in reverse order: a file of the same size with the same footer, in which every row lies elsewhere.
fn files() -> [Vec<u8>; 2] {
    let [one, other] = [parquet(0..300), parquet((0..300).rev())];
    assert_eq!(one.len(), other.len());
    assert_eq!(one[one.len() - 200..], other[other.len() - 200..]);
    [one, other]
}

/// Either file gives this answer; one read at the places of the other gives others.
fn right_or_told(answer: &std::result::Result<String, String>, truth: &str, when: &str) -> bool {
    match answer {
        Ok(answer) => assert_eq!(answer, truth, "{when}"),
        Err(error) => assert!(error.contains("was replaced"), "{when}: {error}"),
    }
    answer.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_replaced_before_any_read_of_a_query_gives_no_wrong_row() {
    let [original, reversed] = files();
    for (mode, sql) in questions() {
        let mut told = 0;
        for gets in 0.. {
            let (store, left) = replacing("t/a.parquet", reversed.clone());
            let table = Table::s3(store);
            table.put("a.parquet", original.clone()).await;
            table.create_index().await;
            let off = session(&table, "off").await;
            let truth = ask(&off, &questions()[0].1).await.expect("DataFusion answers");
            let ctx = session(&table, mode).await;
            // The listing is remembered from here on, so the whole query is about the original.
            ask(&ctx, "SELECT count(*) FROM t")
                .await
                .expect("DataFusion answers");
            *left.lock().expect("no panic") = Some(gets);
            let answer = ask(&ctx, &sql).await;
            let when = format!("{mode}: {sql}, GET {gets}");
            told += usize::from(right_or_told(&answer, &truth, &when));
            if left.lock().expect("no panic").is_some() {
                assert!(
                    gets > 0 && answer.is_ok(),
                    "the query read nothing after the replacement"
                );
                break;
            }
        }
        assert!(
            told > 0,
            "{mode}: {sql}: nothing was noticed, so nothing was tested"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_replaced_in_s3_while_a_query_runs_gives_no_wrong_row() {
    let server = Arc::new(S3::start());
    let [original, reversed] = files();
    let direct = Table::s3(server.client());
    let mut told = 0;
    for gets in 0..6 {
        direct.put("a.parquet", original.clone()).await;
        if gets == 0 {
            direct.create_index().await;
        }
        let truth = ask(&session(&direct, "off").await, &questions()[0].1).await;
        let left = Arc::new(Mutex::new(None));
        let plan = {
            let (left, server, reversed) = (Arc::clone(&left), Arc::clone(&server), reversed.clone());
            move |request: &Request| {
                if request.method == "GET" && request.target.contains("/t/a.parquet") {
                    let mut left = left.lock().expect("no panic");
                    if *left == Some(0) {
                        server.replace("t/a.parquet", &reversed);
                    }
                    *left = left.and_then(|left: usize| left.checked_sub(1));
                }
                Fault::None
            }
        };
        let (client, _) = server.client_through(Duration::from_secs(5), plan).await;
        let table = Table::s3(client);
        for (mode, sql) in questions() {
            direct.put("a.parquet", original.clone()).await;
            let ctx = session(&table, mode).await;
            ask(&ctx, "SELECT count(*) FROM t")
                .await
                .expect("DataFusion answers");
            *left.lock().expect("no panic") = Some(gets);
            let answer = ask(&ctx, &sql).await;
            *left.lock().expect("no panic") = None;
            let truth = truth.as_ref().expect("DataFusion answers");
            told += usize::from(right_or_told(
                &answer,
                truth,
                &format!("{mode}: {sql}, GET {gets}"),
            ));
        }
    }
    assert!(told > 0, "nothing was noticed, so nothing was tested");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_file_changed_between_plan_and_execution_is_told() {
    let [original, reversed] = files();
    for in_place in [false, true] {
        for ((mode, sql), table) in questions()
            .into_iter()
            .flat_map(|question| [(question.clone(), Table::local()), (question, Table::wrapped())])
        {
            table.put("a.parquet", original.clone()).await;
            table.create_index().await;
            let ctx = session(&table, mode).await;
            let frame = ctx.hnsw_sql(&sql).await.expect("planned");
            let plan = frame.create_physical_plan().await.expect("planned");
            // Far enough from the first writing for its time to differ.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if in_place {
                let path = table.path("a.parquet");
                std::fs::write(path, &reversed).expect("room");
            } else {
                table.put("a.parquet", reversed.clone()).await;
            }
            let error = collect(plan, ctx.task_ctx()).await.map(|_| ()).expect_err(&sql);
            assert!(
                error.to_string().contains("was replaced"),
                "{mode}: {sql}: {error}"
            );
        }
    }
}

/// `HNSW_LOAD_SECONDS` sets how long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_files_replaced_all_the_time_give_no_wrong_row() {
    files_are_replaced_all_the_time(Table::local()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_a_wrapped_store_replaced_all_the_time_give_no_wrong_row() {
    files_are_replaced_all_the_time(Table::wrapped()).await;
}

async fn files_are_replaced_all_the_time(table: Table) {
    let [original, reversed] = files();
    let table = Arc::new(table);
    table.put("a.parquet", original.clone()).await;
    table.create_index().await;
    let truth = ask(&session(&table, "off").await, &questions()[0].1)
        .await
        .expect("DataFusion answers");
    let stop = Arc::new(AtomicBool::new(false));
    let replaced = Arc::new(AtomicUsize::new(0));
    let writer = {
        let (table, stop, replaced) = (Arc::clone(&table), Arc::clone(&stop), Arc::clone(&replaced));
        // Not in the table's directory, where a listing would show it for a moment.
        let elsewhere = crate::sample::temp();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let turn = replaced.fetch_add(1, Ordering::Relaxed);
                let fresh = elsewhere.path().join("fresh");
                std::fs::write(&fresh, [&reversed, &original][turn % 2]).expect("room");
                std::fs::rename(fresh, table.path("a.parquet")).expect("one file system");
                std::thread::sleep(Duration::from_micros(500));
            }
        })
    };
    let begun = Instant::now();
    let (mut asked, mut told) = (0, 0);
    while begun.elapsed() < Duration::from_secs_f64(crate::load::seconds()) {
        for (mode, sql) in questions() {
            let ctx = session(&table, mode).await;
            let frame = match ctx.hnsw_sql(&sql).await {
                Ok(frame) => frame,
                Err(error) => panic!("{sql}: {error}"),
            };
            let plan = match frame.create_physical_plan().await {
                Ok(plan) => plan,
                Err(error) => {
                    assert!(error.to_string().contains("was replaced"), "{sql}: {error}");
                    continue;
                }
            };
            let ours = datafusion::physical_plan::displayable(plan.as_ref())
                .indent(false)
                .to_string()
                .contains("VectorScanExec");
            let answer = match collect(plan, ctx.task_ctx()).await {
                Ok(batches) => Ok(pretty_format_batches(&batches).expect("text").to_string()),
                Err(error) => Err(error.to_string()),
            };
            // DataFusion's own scan does not look which file it reads.
            if ours {
                asked += 1;
                told += usize::from(right_or_told(&answer, &truth, &format!("{mode}: {sql}")));
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer does not panic");
    println!("{asked} queries, {told} told of {replaced:?} replacements");
    assert!(asked > told, "{asked} {told}");
}
