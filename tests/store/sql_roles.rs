//! What children do in SQL.

use std::path::Path;
use std::sync::Arc;

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_hnsw::HnswSessionExt as _;
use object_store::ObjectStoreExt;

use crate::server::client;
use crate::table::{parquet, run, wrap_local};
use crate::told::Told;

pub const CREATE: &str = "CREATE INDEX IF NOT EXISTS i ON t USING hnsw (v) WITH (metric = 'l2')";
pub const DROP: &str = "DROP INDEX IF EXISTS i ON t";

/// A session that sees the Parquet files of a directory as `t`.
async fn session(url: &str) -> SessionContext {
    session_of(url, false).await
}

async fn session_of(url: &str, is_wrapped: bool) -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    datafusion_hnsw::register(&ctx).expect("registered");
    if is_wrapped {
        wrap_local(&ctx);
    }
    table(&ctx, url).await;
    ctx
}

async fn table(ctx: &SessionContext, url: &str) {
    let sql = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{url}'");
    run(ctx, &sql).await;
}

pub async fn play(role: &str, dir: &Path) {
    match role {
        // Of all files of the directory, until it is killed or done.
        "create" => {
            let ctx = session(&format!("file://{}/", dir.display())).await;
            println!("at work");
            run(&ctx, CREATE).await;
        }
        // By turns, until it is killed.
        "create and drop" | "create and drop, wrapped" => {
            let is_wrapped = role.ends_with("wrapped");
            println!("at work");
            loop {
                let ctx = session_of(&format!("file://{}/", dir.display()), is_wrapped).await;
                run(&ctx, CREATE).await;
                run(&ctx, DROP).await;
            }
        }
        "sidecar dir" => sidecar_dir(dir).await,
        "tell" => tell(dir).await,
        other => panic!("no role {other:?}"),
    }
}

/// In a directory that may be read only; `DIR/indexes` may be written.
async fn sidecar_dir(dir: &Path) {
    let ctx = session(&format!("file://{}/t/", dir.display())).await;
    let denied = async { ctx.hnsw_sql(CREATE).await?.collect().await };
    println!("beside: {}", denied.await.expect_err("it may not be written"));
    let indexes = dir.join("indexes");
    let set = format!("SET hnsw.sidecar_dir = '{}'", indexes.display());
    let near = "SELECT id FROM t ORDER BY array_distance(v, [1,0,0,0,0,0,0,0]) LIMIT 3";
    for sql in [
        &set,
        CREATE,
        &format!("EXPLAIN {near}"),
        near,
        "SELECT state FROM hnsw_indexes()",
        DROP,
    ] {
        println!("{sql}\n{}", run(&ctx, sql).await);
    }
}

/// Tells all that is told of the life of an index in S3.
async fn tell(dir: &Path) {
    let told = Told::default();
    tracing::subscriber::set_global_default(told.clone()).expect("the first");
    let port = std::env::var("HNSW_STORE_PORT").expect("the server's");
    let client = client(port.parse().expect("a port"), std::time::Duration::from_secs(20));
    let put = async |file: &str, rows| {
        let path = format!("t/{file}.parquet").into();
        client.put(&path, parquet(rows).into()).await.expect("room");
    };
    put("a", 0..400).await;
    put("b", 400..800).await;
    let root = ObjectStoreUrl::parse("s3://bucket").expect("a URL");
    let open = async |cache: &str| {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        datafusion_hnsw::register(&ctx).expect("registered");
        ctx.register_object_store(root.as_ref(), Arc::clone(&client) as _);
        table(&ctx, "s3://bucket/t/").await;
        let cache = dir.join(cache);
        run(&ctx, &format!("SET hnsw.cache_dir = '{}'", cache.display())).await;
        ctx
    };
    let near = "SELECT id FROM t ORDER BY array_distance(v, [0.1234,0,0,0,0,0,0,0]) LIMIT 3";
    run(&open("one").await, CREATE).await;
    put("b", 400..801).await;
    let ctx = open("two").await;
    for _ in 0..3 {
        run(&ctx, near).await;
    }
    run(&ctx, DROP).await;
    for line in told.lines() {
        println!("told {}", line.replace('\n', " "));
    }
}
