//! Parts of tests that run in a process of their own: to be killed, or to have less right or less room.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::{Location, SidecarOptions, SidecarStore, StoreError};
use object_store::local::LocalFileSystem;

use crate::sample::{identity, index, meta};

const ROLE: &str = "HNSW_STORE_ROLE";
const DIR: &str = "HNSW_STORE_DIR";

/// Rows of the two sidecars that children publish by turns.
pub const ROWS: [usize; 2] = [5, 2000];

/// The command that runs this program again in a role.
pub fn command(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "child::in_a_role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts a role and waits until it is at work.
pub fn start(role: &str, dir: &Path) -> Child {
    let mut child = command(role, dir)
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts");
    let output = child.stdout.take().expect("its output is ours");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    assert!(
        lines.any(|line| line.is_ok_and(|line| line.contains("at work"))),
        "the child died early"
    );
    child
}

/// The place of the file that children work on: local, or in a store that happens to be a directory.
pub fn place(dir: &Path, remote: bool) -> Location {
    if !remote {
        return Location::local(dir.join("t.parquet")).expect("a plain path");
    }
    place_of(dir, "t.parquet")
}

fn place_of(dir: &Path, file: &str) -> Location {
    let store = LocalFileSystem::new_with_prefix(dir).expect("a directory");
    Location::remote(Arc::new(store), "s3://bucket", file.into())
}

pub fn options(dir: &Path) -> SidecarOptions {
    let mut options = SidecarOptions::default();
    options.cache_dir = Some(dir.join("cache"));
    options.listing_ttl = std::time::Duration::ZERO;
    options.fetch_part = 4096;
    options
}

/// Does nothing unless this program was started by [`command`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_role() {
    let (Ok(role), Ok(dir)) = (std::env::var(ROLE), std::env::var(DIR)) else {
        return;
    };
    let dir = PathBuf::from(dir);
    let store = SidecarStore::new(options(&dir));
    let indexes = ROWS.map(|rows| (rows, index(Cosine, rows)));
    let publish = async |at: &Location, turn: usize| {
        let (rows, index) = &indexes[turn % 2];
        store
            .publish(
                at,
                Arc::clone(index),
                meta("v", identity("t.parquet", *rows as u64)),
            )
            .await
    };
    let remote = role.starts_with("remote");
    let at = place(&dir, remote);
    match role.as_str() {
        // Until it is killed.
        "publish" | "remote publish" => {
            println!("at work");
            for turn in 0.. {
                publish(&at, turn).await.expect("published");
            }
        }
        "publish and remove" => {
            println!("at work");
            for turn in 0.. {
                publish(&at, turn).await.expect("published");
                store.remove(&at, "v", Cosine).await.expect("removed");
            }
        }
        "remote fill" => {
            println!("at work");
            loop {
                let store = SidecarStore::new(options(&dir));
                let rows = ROWS[1];
                store
                    .lookup(&at, "v", Cosine, &identity("t.parquet", rows as u64))
                    .await;
                let _ = std::fs::remove_dir_all(dir.join("cache"));
            }
        }
        // Sidecars come and go in a cache directory that holds two of six.
        "remote churn" => {
            let place = |number| place_of(&dir, &format!("f{number}.parquet"));
            let files: Vec<_> = (0..6).map(place).collect();
            for file in &files {
                if store
                    .publish(file, Arc::clone(&indexes[1].1), meta("v", identity("f", 9)))
                    .await
                    .is_err()
                {
                    println!("another child published it");
                }
            }
            let until = std::time::Instant::now() + std::time::Duration::from_millis(1500);
            let mut lookups = 0;
            while std::time::Instant::now() < until {
                let mut options = options(&dir);
                options.cache_size = 700_000;
                let store = SidecarStore::new(options);
                let at = &files[lookups * 7 % 6];
                let found = store.lookup(at, "v", Cosine, &identity("f", 9)).await;
                assert_eq!(crate::conformance::code(&found), "fresh", "{found:?}");
                assert_eq!(found.fresh().expect("fresh").verify(), Ok(()));
                lookups += 1;
            }
            println!("lookups {lookups}");
        }
        // Of all files of the directory, until it is killed or done.
        #[cfg(feature = "datafusion")]
        "create index" => {
            let ctx = datafusion::prelude::SessionContext::new();
            datafusion_hnsw::register(&ctx).expect("registered");
            let url = format!("file://{}/", dir.display());
            crate::sql::run(
                &ctx,
                &format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{url}'"),
            )
            .await;
            println!("at work");
            crate::sql::run(&ctx, "SELECT * FROM hnsw_create_index('t', 'v', 'metric=l2')").await;
        }
        // In a directory that may be read only; `DIR/indexes` may be written.
        #[cfg(feature = "datafusion")]
        "sidecar dir" => {
            use datafusion_hnsw::HnswSessionExt as _;
            let ctx = datafusion::prelude::SessionContext::new();
            datafusion_hnsw::register(&ctx).expect("registered");
            let url = format!("file://{}/t/", dir.display());
            crate::sql::run(
                &ctx,
                &format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{url}'"),
            )
            .await;
            let create = "CREATE INDEX near ON t USING hnsw (v) WITH (metric = 'l2')";
            let denied = async { ctx.hnsw_sql(create).await?.collect().await };
            println!("beside: {}", denied.await.expect_err("it may not be written"));
            let indexes = dir.join("indexes");
            let set = format!("SET hnsw.sidecar_dir = '{}'", indexes.display());
            let near = "SELECT id FROM t ORDER BY array_distance(v, [1,0,0,0,0,0,0,0]) LIMIT 3";
            for sql in [
                &set,
                create,
                &format!("EXPLAIN {near}"),
                near,
                "SELECT state FROM hnsw_indexes()",
                "DROP INDEX near ON t",
            ] {
                println!("{sql}\n{}", crate::sql::run(&ctx, sql).await);
            }
        }
        "look" => {
            let found = store
                .lookup(&at, "v", Cosine, &identity("t.parquet", ROWS[0] as u64))
                .await;
            println!("found {}", crate::conformance::code(&found));
        }
        // One attempt, whose outcome is told.
        "try" => {
            let outcome = match publish(&at, 1).await {
                Ok(_) => "published".to_owned(),
                Err(error @ StoreError::NoSpace { .. }) => format!("no space: {error}"),
                Err(error @ StoreError::Denied { .. }) => format!("denied: {error}"),
                Err(error) => format!("other: {error:?}"),
            };
            println!("outcome {outcome}");
            let found = store
                .lookup(&at, "v", Cosine, &identity("t.parquet", ROWS[0] as u64))
                .await;
            println!("found {}", crate::conformance::code(&found));
            let removed = store.remove(&at, "v", Cosine).await;
            println!(
                "removed {}",
                removed.map_or_else(|error| error.to_string(), |there| there.to_string())
            );
        }
        other => panic!("no role {other:?}"),
    }
}
