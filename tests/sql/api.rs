//! The API for programs gives the answers of SQL, and says how it came to them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use datafusion_hnsw::{HnswSessionExt, IndexBuilder, KnnOptions, StoredVectors, VectorMetric, VectorTable};
use tempfile::TempDir;

/// Table `t` of two files, with a NULL vector, a zero vector and a filterable column.
async fn table() -> (TempDir, SessionContext) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ctx = SessionContext::new_with_config(SessionConfig::new());
    datafusion_hnsw::register(&ctx).expect("the extension registers");
    let root = dir.path().display();
    for (file, range) in [("a", "0, 40"), ("b", "40, 60")] {
        let vector = "CASE WHEN n = 3 THEN NULL WHEN n = 5 THEN [0, 0] ELSE [n % 7, n] END";
        let rows = format!("SELECT n AS id, n % 2 AS odd, arrow_cast({vector}, 'List(Float32)') AS v");
        let from = format!("FROM (SELECT unnest(range({range})) AS n)");
        run(
            &ctx,
            &format!("COPY ({rows} {from}) TO '{root}/t/{file}.parquet'"),
        )
        .await;
    }
    run(
        &ctx,
        &format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{root}/t/'"),
    )
    .await;
    (dir, ctx)
}

async fn run(ctx: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    ctx.hnsw_sql(sql).await.expect(sql).collect().await.expect(sql)
}

/// The ids and the bits of the distances.
fn rows(batches: &[RecordBatch]) -> Vec<(i64, Option<u64>)> {
    let of = |batch: &RecordBatch| {
        let ids = batch
            .column_by_name("id")
            .expect("an id")
            .as_primitive::<Int64Type>()
            .clone();
        let distances = batch.column_by_name("_distance").expect("a distance");
        let distances = distances.as_primitive::<Float64Type>().clone();
        (0..batch.num_rows()).map(move |row| {
            (
                ids.value(row),
                distances.is_valid(row).then(|| bits(distances.value(row))),
            )
        })
    };
    batches.iter().flat_map(of).collect()
}

/// The bits of a number. The sign of a NaN is the processor's.
fn bits(number: f64) -> u64 {
    if number.is_nan() {
        f64::NAN.to_bits()
    } else {
        number.to_bits()
    }
}

fn options(metric: VectorMetric) -> KnnOptions {
    KnnOptions {
        metric,
        ef_search: Some(1000),
        projection: Some(vec!["id".to_owned()]),
        ..KnnOptions::default()
    }
}

#[tokio::test]
async fn a_search_gives_the_rows_of_vector_search_for_every_metric_mode_and_query() {
    let (_dir, ctx) = table().await;
    for metric in [
        VectorMetric::Cosine,
        VectorMetric::Euclidean,
        VectorMetric::DotProduct,
    ] {
        IndexBuilder::new("t", "v")
            .metric(metric)
            .build(&ctx)
            .await
            .expect("built");
    }
    for mode in ["auto", "exact"] {
        run(&ctx, &format!("SET hnsw.mode = '{mode}'")).await;
        let table = VectorTable::open(&ctx, "t").await.expect("a table");
        for metric in [
            VectorMetric::Cosine,
            VectorMetric::Euclidean,
            VectorMetric::DotProduct,
        ] {
            for (query, text) in [
                ([3.0, 20.5], "[3.0, 20.5]"),
                ([0.0, 0.0], "[0.0, 0.0]"),
                ([f64::NAN, 1.0], "[CAST('NaN' AS DOUBLE), 1.0]"),
                ([f64::INFINITY, 1.0], "[CAST('Infinity' AS DOUBLE), 1.0]"),
            ] {
                for k in [0, 1, 7, 58, 59, 60, 100] {
                    let found = table.search(&ctx, "v", &query, k, &options(metric)).await;
                    let found = rows(&[found.expect("searched")]);
                    let sql = format!(
                        "SELECT id, _distance FROM vector_search('t', 'v', {text}, {k}, 'metric={metric}')"
                    );
                    let expected = rows(&run(&ctx, &sql).await);
                    let distances =
                        |rows: &[(i64, Option<u64>)]| rows.iter().map(|row| row.1).collect::<Vec<_>>();
                    assert_eq!(distances(&found), distances(&expected), "{mode}, {sql}");
                    let ids: BTreeSet<_> = found.iter().map(|row| row.0).collect();
                    assert_eq!(ids.len(), k.min(60), "{mode}, {sql}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_filter_holds_also_where_the_query_can_only_be_compared_row_by_row() {
    let (_dir, ctx) = table().await;
    let table = VectorTable::open(&ctx, "t").await.expect("a table");
    let odd = KnnOptions {
        filter: Some(col("odd").eq(lit(1_i64))),
        ..options(VectorMetric::Cosine)
    };
    for query in [[0.0, 0.0], [f64::NAN, 1.0], [1.0, 2.0]] {
        let found = table
            .search(&ctx, "v", &query, 100, &odd)
            .await
            .expect("searched");
        assert_eq!(found.num_columns(), 2);
        let found = rows(&[found]);
        assert_eq!(found.len(), 30, "{query:?}");
        assert!(found.iter().all(|row| row.0 % 2 == 1), "{found:?}");
    }
}

#[tokio::test]
async fn a_search_says_whether_it_went_through_an_index_and_why_not() {
    let (dir, ctx) = table().await;
    let metric = VectorMetric::Euclidean;
    let table = VectorTable::open(&ctx, "t").await.expect("a table");
    let search = async |query: &[f64]| {
        let found = table
            .search_with_report(&ctx, "v", query, 3, &options(metric))
            .await;
        found.expect("searched").1
    };
    let report = search(&[1.0, 2.0]).await;
    assert_eq!(
        (report.files, report.files_indexed, report.used_index()),
        (2, 0, false)
    );
    assert!(
        report.reasons["no_sidecar"].contains("CREATE INDEX"),
        "{report:?}"
    );

    let summary = IndexBuilder::new("t", "v")
        .metric(metric)
        .stored(StoredVectors::F16)
        .build(&ctx)
        .await;
    assert_eq!(summary.expect("built").files_built, 2);
    let report = search(&[1.0, 2.0]).await;
    assert_eq!(
        (report.files, report.files_indexed, report.used_index()),
        (2, 2, true)
    );
    assert!(report.reasons.is_empty(), "{report:?}");

    let report = search(&[f64::NAN, 2.0]).await;
    assert_eq!((report.files, report.files_indexed), (2, 0));
    assert!(report.reasons.contains_key("query_vector"), "{report:?}");

    run(&ctx, "SET hnsw.mode = 'exact'").await;
    let report = search(&[1.0, 2.0]).await;
    assert_eq!(report.files_indexed, 0);
    assert!(report.reasons.contains_key("mode_exact"), "{report:?}");
    drop(dir);
}

#[tokio::test]
async fn what_cannot_be_searched_is_an_error() {
    let (_dir, ctx) = table().await;
    let table = VectorTable::open(&ctx, "t").await.expect("a table");
    for (column, query, metric, part) in [
        ("nope", vec![1.0, 2.0], VectorMetric::Cosine, "nope"),
        ("odd", vec![1.0, 2.0], VectorMetric::Cosine, "holds no vectors"),
        ("v", vec![], VectorMetric::Cosine, "empty"),
        ("v", vec![1.0], VectorMetric::Cosine, "has 1 numbers"),
        (
            "v",
            vec![1.0, 2.0],
            VectorMetric::NormalizedCosine,
            "use metric = 'cosine'",
        ),
    ] {
        let found = table.search(&ctx, column, &query, 3, &options(metric)).await;
        let error = found.expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
    let build = IndexBuilder::new("t", "v").metric(VectorMetric::NormalizedCosine);
    let error = build
        .build(&ctx)
        .await
        .expect_err("no query would use it")
        .to_string();
    assert!(error.contains("use metric = 'cosine'"), "{error}");
}

#[tokio::test]
async fn progress_names_files_by_their_whole_path_and_a_skipped_file_is_told() {
    let (dir, ctx) = table().await;
    let root = dir.path().display();
    let rows = "SELECT n AS id, n % 2 AS odd, arrow_cast(CASE WHEN n = 2 THEN [1] ELSE [n, 1] END, 'List(Float32)') AS v";
    let from = "FROM (SELECT unnest(range(0, 5)) AS n)";
    run(&ctx, &format!("COPY ({rows} {from}) TO '{root}/t/c.parquet'")).await;
    run(&ctx, "DROP TABLE t").await;
    run(
        &ctx,
        &format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{root}/t/'"),
    )
    .await;
    let paths: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let noted = Arc::clone(&paths);
    let build = IndexBuilder::new("t", "v").on_progress(move |at| {
        noted.lock().expect("no panic").insert(at.path.clone());
        ControlFlow::Continue(())
    });
    let summary = build.build(&ctx).await.expect("the others are built");
    assert_eq!(summary.files_built, 2);
    let odd = format!(
        "{root}/t/c.parquet, row 2 (counted from 0): the vector has 1 numbers where those before it have 2"
    );
    assert_eq!(summary.skipped.len(), 1);
    assert!(summary.skipped[0].starts_with(&odd), "{:?}", summary.skipped);
    for file in ["a", "b"] {
        let path = format!("{root}/t/{file}.parquet");
        assert!(
            paths.lock().expect("no panic").contains(&path),
            "{path}: {paths:?}"
        );
    }
}

#[tokio::test]
async fn a_table_is_opened_by_the_name_of_its_file_where_from_takes_it() {
    let (dir, _) = table().await;
    let ctx = SessionContext::new().enable_url_table();
    datafusion_hnsw::register(&ctx).expect("the extension registers");
    let file = format!("{}/t/a.parquet", dir.path().display());
    let metric = VectorMetric::Euclidean;
    let built = IndexBuilder::new(&file, "v")
        .metric(metric)
        .build(&ctx)
        .await
        .expect("built");
    assert_eq!((built.index_name.as_str(), built.files_built), ("a_v_l2_idx", 1));
    let table = VectorTable::open(&ctx, file.as_str()).await.expect("a table");
    let found = table
        .search_with_report(&ctx, "v", &[4.0, 11.0], 1, &options(metric))
        .await;
    let (found, report) = found.expect("searched");
    assert_eq!(rows(&[found]), [(11, Some(0))]);
    assert!(report.used_index(), "{report:?}");
    let sql = format!("SELECT id, _distance FROM vector_search('{file}', 'v', [4.0, 11.0], 1, 'metric=l2')");
    assert_eq!(rows(&run(&ctx, &sql).await), [(11, Some(0))]);
    let listed = run(&ctx, "SELECT 1 AS id, 0.0 AS _distance FROM hnsw_indexes()").await;
    assert_eq!(rows(&listed).len(), 1);
}

/// A catalog that never answers at once, as one behind a network.
mod slow {
    use std::sync::Arc;

    use async_trait::async_trait;
    use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
    use datafusion::datasource::TableProvider;
    use datafusion::error::Result;

    #[derive(Debug, Default)]
    pub(super) struct Slow(pub(super) MemorySchemaProvider);

    #[async_trait]
    impl SchemaProvider for Slow {
        fn table_names(&self) -> Vec<String> {
            self.0.table_names()
        }

        async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            self.0.table(name).await
        }

        fn register_table(
            &self,
            name: String,
            table: Arc<dyn TableProvider>,
        ) -> Result<Option<Arc<dyn TableProvider>>> {
            self.0.register_table(name, table)
        }

        fn table_exist(&self, name: &str) -> bool {
            self.0.table_exist(name)
        }
    }
}

#[test]
fn functions_wait_for_a_catalog_that_does_not_answer_at_once() {
    use datafusion::catalog::SchemaProvider;
    let runtimes = [
        tokio::runtime::Builder::new_current_thread().enable_all().build(),
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build(),
    ];
    for runtime in runtimes {
        runtime.expect("a runtime").block_on(async {
            let (_dir, ctx) = table().await;
            let slow = slow::Slow::default();
            let t = ctx.table_provider("t").await.expect("a table");
            slow.register_table("s".to_owned(), t).expect("registered");
            let catalog = ctx.catalog("datafusion").expect("a catalog");
            catalog.register_schema("slow", Arc::new(slow)).expect("registered");
            let sql = "SELECT id, _distance FROM vector_search('slow.s', 'v', [4.0, 11.0], 1, 'metric=l2')";
            assert_eq!(rows(&run(&ctx, sql).await), [(11, Some(0))]);
            let sql = "SELECT s_id AS id, _distance FROM vector_join('slow.s', 'v', 'slow.s', 'v', 1, 'metric=l2') WHERE id = 9";
            assert_eq!(rows(&run(&ctx, sql).await), [(9, Some(0))]);
            for missing in [
                "SELECT * FROM vector_search('slow.nope', 'v', [1.0], 5)",
                "SELECT * FROM vector_join('t', 'v', 'slow.nope', 'v', 5)",
                "SELECT * FROM vector_join('slow.nope', 'v', 't', 'v', 5)",
            ] {
                let error = ctx.sql(missing).await.expect_err(missing).strip_backtrace();
                assert!(error.contains("there is no table slow.nope"), "{error}");
            }
        });
    }
}
