//! What a session remembers of one query must hold for the next.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use datafusion::arrow::array::{AsArray, BooleanArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarUDF, Volatility, col, create_udf, lit};
use datafusion::prelude::SessionContext;
use datafusion_hnsw::{HnswSessionExt as _, KnnOptions, VectorTable};

/// Whose rows may be seen; each test has a number of its own.
fn tenant_functions(tenant: &Arc<AtomicI64>) -> [ScalarUDF; 2] {
    let now = Arc::clone(tenant);
    let current = create_udf(
        "current_tenant",
        vec![],
        DataType::Int64,
        Volatility::Stable,
        Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::from(scalar(now.load(Ordering::SeqCst))))),
    );
    let now = Arc::clone(tenant);
    let mine = create_udf(
        "is_mine",
        vec![DataType::Int64],
        DataType::Boolean,
        Volatility::Stable,
        Arc::new(move |arguments: &[ColumnarValue]| {
            let tenant = now.load(Ordering::SeqCst);
            let rows = ColumnarValue::values_to_arrays(arguments)?;
            let rows = rows[0].as_primitive::<Int64Type>().iter();
            let mine: BooleanArray = rows.map(|row| row.map(|row| row == tenant)).collect();
            Ok(ColumnarValue::Array(Arc::new(mine)))
        }),
    );
    [current, mine]
}

fn scalar(number: i64) -> datafusion::common::ScalarValue {
    datafusion::common::ScalarValue::Int64(Some(number))
}

async fn session(dir: &Path, tenant: &Arc<AtomicI64>) -> SessionContext {
    let ctx = SessionContext::new();
    datafusion_hnsw::register(&ctx).expect("registered");
    for function in tenant_functions(tenant) {
        ctx.register_udf(function);
    }
    let path = dir.join("t.parquet");
    for sql in [
        format!(
            "COPY (SELECT value AS id, value % 2 AS tenant,
               arrow_cast([value, 1], 'FixedSizeList(2, Float32)') AS v FROM generate_series(1, 40))
             TO '{}'",
            path.display()
        ),
        format!(
            "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'",
            path.display()
        ),
        "CREATE INDEX ON t USING hnsw (v) WITH (metric = 'l2')".to_owned(),
    ] {
        run(&ctx, &sql).await;
    }
    ctx
}

async fn run(ctx: &SessionContext, sql: &str) -> Vec<i64> {
    let frame = ctx.hnsw_sql(sql).await.expect(sql);
    ids(&frame.collect().await.expect(sql))
}

fn ids(batches: &[datafusion::arrow::array::RecordBatch]) -> Vec<i64> {
    let columns = batches.iter().filter_map(|batch| batch.columns().first());
    columns
        .filter_map(|column| column.as_primitive_opt::<Int64Type>())
        .flat_map(|column| column.values().to_vec())
        .collect()
}

#[tokio::test]
async fn a_filter_with_a_stable_function_is_evaluated_for_each_query() {
    let dir = tempfile::tempdir().expect("a directory");
    let tenant = Arc::new(AtomicI64::new(1));
    let ctx = session(dir.path(), &tenant).await;
    let table = VectorTable::open(&ctx, "t").await.expect("a table");
    let [current, mine] = tenant_functions(&tenant);
    for mode in ["auto", "exact", "off"] {
        run(&ctx, &format!("SET hnsw.mode = '{mode}'")).await;
        for (whose, nearest) in [(1, [1, 3, 5]), (0, [2, 4, 6]), (1, [1, 3, 5])] {
            tenant.store(whose, Ordering::SeqCst);
            for filter in [
                "tenant = current_tenant()",
                "is_mine(tenant)",
                "NOT is_mine(tenant + 1) AND is_mine(tenant)",
            ] {
                let sql =
                    format!("SELECT id FROM t WHERE {filter} ORDER BY array_distance(v, [0, 1]) LIMIT 3");
                assert_eq!(run(&ctx, &sql).await, nearest, "{mode} {filter}, tenant {whose}");
            }
            let ranked = "SELECT id FROM (SELECT t.id, q.column1 AS q, row_number() OVER (PARTITION BY q.column1
                ORDER BY array_distance(t.v, q.column2)) AS place
                FROM (VALUES (1, [0.0, 1.0])) AS q CROSS JOIN (SELECT * FROM t WHERE is_mine(tenant)) AS t) AS r
                WHERE place <= 3 ORDER BY place";
            assert_eq!(run(&ctx, ranked).await, nearest, "{mode} ranked, tenant {whose}");
            if mode == "off" {
                continue;
            }
            for filter in [
                col("tenant").eq(current.call(vec![])),
                mine.call(vec![col("tenant")]),
            ] {
                let options = KnnOptions {
                    filter: Some(filter),
                    projection: Some(vec!["id".to_owned()]),
                    ..KnnOptions::default()
                };
                let found = table
                    .search(&ctx, "v", &[0.0, 1.0], 3, &options)
                    .await
                    .expect("rows");
                assert_eq!(ids(&[found]), nearest, "VectorTable::search, tenant {whose}");
            }
        }
    }
}

#[tokio::test]
async fn the_bitmap_of_an_immutable_filter_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let ctx = session(dir.path(), &Arc::default()).await;
    let hits = async |filter: &str| {
        let sql = format!(
            "EXPLAIN ANALYZE SELECT id FROM t WHERE {filter} ORDER BY array_distance(v, [0, 1]) LIMIT 3"
        );
        let batches = ctx
            .hnsw_sql(&sql)
            .await
            .expect("a plan")
            .collect()
            .await
            .expect("rows");
        let text = datafusion::arrow::util::pretty::pretty_format_batches(&batches)
            .expect("text")
            .to_string();
        let after = text
            .split("filter_cache_hits=")
            .nth(1)
            .expect("the metric is shown");
        after.starts_with('1')
    };
    let kept = "abs(id) > 3 AND tenant IN (0, 1, 7) AND CASE WHEN id > 5 THEN true ELSE CAST(id AS VARCHAR) LIKE '1%' END";
    assert!(!hits(kept).await);
    assert!(hits(kept).await);
    assert!(!hits("NOT is_mine(tenant)").await);
    assert!(!hits("NOT is_mine(tenant)").await);
}

#[test]
fn expressions_of_these_tests_are_stable() {
    let [current, mine] = tenant_functions(&Arc::default());
    let filter: Expr = mine
        .call(vec![col("tenant")])
        .and(col("tenant").eq(current.call(vec![])));
    assert!(!filter.is_volatile() && filter != lit(true));
}
