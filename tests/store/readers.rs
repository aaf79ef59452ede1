//! An index does not get in the way of anybody who reads the directory of the Parquet files by his own defaults.
//!
//! DataFusion is always tried; polars, DuckDB, PyArrow, pandas and fastparquet are where `python3` can import them
//! (`HNSW_PYTHON` names another interpreter). What was skipped is printed.

use std::path::Path;
use std::process::Command;

use datafusion::prelude::SessionContext;

use crate::sample::{names, sidecars, temp};
use crate::sql_roles::CREATE;
use crate::table::{parquet, run};

const ROWS: i64 = 60;

/// Writes the table, flat or by Hive partitions.
fn write(dir: &Path, hive: bool) {
    for file in 0..3 {
        let into = if hive {
            dir.join(format!("p={file}"))
        } else {
            dir.to_owned()
        };
        std::fs::create_dir_all(&into).expect("room");
        let rows = parquet(file * 20..(file + 1) * 20);
        std::fs::write(into.join(format!("f{file}.parquet")), rows).expect("room");
    }
}

/// The rows that DataFusion itself finds, without this crate, when it is given the directory.
async fn rows_of(dir: &Path, columns: &str, partitioned: &str) -> String {
    let ctx = SessionContext::new();
    let location = dir.display();
    let sql =
        format!("CREATE EXTERNAL TABLE u {columns} STORED AS PARQUET {partitioned} LOCATION '{location}/'");
    run(&ctx, &sql).await;
    run(&ctx, "SELECT count(*) AS n FROM u").await
}

/// What `tests/readers/read.py` says of the directory.
fn other_readers(dir: &Path, layout: &str) -> Option<String> {
    let python = std::env::var("HNSW_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/read.py");
    let output = Command::new(python).arg(script).arg(dir).arg(layout).output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_an_indexed_directory_find_its_rows_and_nothing_else() {
    for (layout, hive) in [("flat", false), ("hive", true)] {
        let temp = temp();
        let dir = temp.path().join("docs");
        write(&dir, hive);
        let partitioned = if hive { "PARTITIONED BY (p)" } else { "" };
        let ctx = SessionContext::new();
        datafusion_hnsw::register(&ctx).expect("registered");
        let sql = format!(
            "CREATE EXTERNAL TABLE t STORED AS PARQUET {partitioned} LOCATION '{}/'",
            dir.display()
        );
        let before = other_readers(&dir, layout);
        run(&ctx, &sql).await;
        run(&ctx, CREATE).await;
        assert!(sidecars(&dir).is_dir());
        // Nothing at all was put into the directory, whatever a reader may pass over.
        let expected: &[&str] = if hive {
            &["p=0", "p=1", "p=2"]
        } else {
            &["f0.parquet", "f1.parquet", "f2.parquet"]
        };
        assert_eq!(names(&dir), expected);
        for file in 0..if hive { 3 } else { 0 } {
            assert_eq!(names(dir.join(format!("p={file}"))), [format!("f{file}.parquet")]);
        }

        let found = rows_of(&dir, "", partitioned).await;
        assert!(found.contains(&format!("| {ROWS} ")), "{found}");
        if !hive {
            // With a schema, DataFusion takes every object of the directory for Parquet.
            let found = rows_of(&dir, "(id BIGINT)", "").await;
            assert!(found.contains(&format!("| {ROWS} ")), "{found}");
        }

        let (Some(before), Some(after)) = (before, other_readers(&dir, layout)) else {
            println!("skipped: there is no python3 to read the directory with");
            continue;
        };
        assert_eq!(before, after, "{layout}");
        for line in after.lines() {
            let (way, rows) = line.split_once('\t').expect("a way and its rows");
            if rows == "not installed" {
                println!("skipped, not installed: {way}");
            } else {
                assert_eq!(rows, ROWS.to_string(), "{layout}: {way}");
            }
        }
    }
}
