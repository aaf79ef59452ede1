//! "More like this" costs about what a search by a literal costs: only the row of the query vector is read.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, FixedSizeListBuilder, Float32Builder, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt as _;

const ROWS: i64 = 20_000;
const DIM: i32 = 32;

/// Of all vectors.
const VECTOR_BYTES: usize = 20_000 * 32 * 4;

fn number(row: i64, axis: i32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    let number = ((row * 31 + i64::from(axis) * 7) as f64 * 0.37).sin() as f32;
    number
}

fn write(path: &Path, page_index: bool) {
    let mut vectors = FixedSizeListBuilder::new(Float32Builder::new(), DIM);
    for row in 0..ROWS {
        (0..DIM).for_each(|axis| vectors.values().append_value(number(row, axis)));
        vectors.append(true);
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..ROWS))),
        (
            "name",
            Arc::new(StringArray::from_iter_values(
                (0..ROWS).map(|row| format!("row {row}")),
            )),
        ),
        ("v", Arc::new(vectors.finish())),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let properties = WriterProperties::builder()
        .set_data_page_size_limit(16 * 1024)
        .set_write_batch_size(64)
        .set_dictionary_enabled(false)
        .set_offset_index_disabled(!page_index)
        .build();
    let file = File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a schema");
    writer.write(&batch).expect("room");
    writer.close().expect("room");
}

async fn session(dir: &Path, page_index: bool) -> SessionContext {
    write(&dir.join("t.parquet"), page_index);
    let ctx = SessionContext::new();
    datafusion_hnsw::register(&ctx).expect("registered");
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'",
        dir.join("t.parquet").display()
    );
    text(&ctx, &sql).await;
    ctx
}

async fn text(ctx: &SessionContext, sql: &str) -> String {
    let batches = ctx.hnsw_sql(sql).await.expect(sql).collect().await.expect(sql);
    pretty_format_batches(&batches).expect("text").to_string()
}

/// The number behind `metric=` in the line of `node`.
fn metric(plan: &str, node: &str, metric: &str) -> usize {
    let line = plan.lines().find(|line| line.contains(node)).expect(plan);
    let after = line.split(&format!("{metric}=")).nth(1).expect(line);
    let value = after.split([',', ']']).next().expect(line);
    let (number, unit) = value.split_once(' ').unwrap_or((value, ""));
    let number: f64 = number.parse().expect(value);
    let times = match unit.trim() {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        other => panic!("{other}"),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let number = (number * times) as usize;
    number
}

const MORE: &str =
    "SELECT id, array_distance(v, (SELECT v FROM t WHERE FILTER)) AS d FROM t ORDER BY d LIMIT 5";

#[tokio::test]
async fn only_the_row_of_the_query_vector_is_read() {
    for (indexed, page_index, most) in [(true, true, 0), (false, true, 100_000), (true, false, 0)] {
        let dir = tempfile::tempdir().expect("a directory");
        let ctx = session(dir.path(), page_index).await;
        if indexed {
            text(
                &ctx,
                "CREATE INDEX ON t USING hnsw (v) WITH (metric = 'l2', m = 8, ef_construction = 40)",
            )
            .await;
        }
        for filter in [
            "id = 12345",
            "name = 'row 777'",
            "id > 4440 AND name LIKE '%19990'",
        ] {
            let sql = MORE.replace("FILTER", filter);
            let plan = text(&ctx, &format!("EXPLAIN ANALYZE {sql}")).await;
            let of = |name| metric(&plan, "VectorLookupExec", name);
            assert_eq!((of("rows_fetched"), of("passed_through")), (1, 0), "{plan}");
            // The filter's columns, and the page of the row where the vector is not in an index.
            let columns = 20_000 * 8 + 20_000 * 16;
            assert!(of("bytes_read") <= columns + most, "{plan}");
            assert!(columns + most < VECTOR_BYTES / 2);
            let ours = text(&ctx, &sql).await;
            text(&ctx, "SET hnsw.mode = 'off'").await;
            assert_eq!(ours, text(&ctx, &sql).await, "{filter}");
            text(&ctx, "SET hnsw.mode = 'auto'").await;
        }
    }
}

#[tokio::test]
async fn a_filter_that_keeps_many_rows_is_left_to_the_tables_own_scan() {
    let dir = tempfile::tempdir().expect("a directory");
    let ctx = session(dir.path(), true).await;
    text(
        &ctx,
        "CREATE INDEX ON t USING hnsw (v) WITH (metric = 'l2', m = 8, ef_construction = 40)",
    )
    .await;
    let many = "id >= 1000 ORDER BY id LIMIT 1";
    let sql = MORE.replace("FILTER", many);
    let plan = text(&ctx, &format!("EXPLAIN ANALYZE {sql}")).await;
    let of = |name| metric(&plan, "VectorLookupExec", name);
    assert_eq!((of("rows_fetched"), of("passed_through")), (0, 1), "{plan}");
    let ours = text(&ctx, &sql).await;
    assert_eq!(ours, text(&ctx, &MORE.replace("FILTER", "id = 1000")).await);
    text(&ctx, "SET hnsw.mode = 'off'").await;
    assert_eq!(ours, text(&ctx, &sql).await);
}

#[tokio::test]
async fn an_exact_scan_reads_the_vector_column_once() {
    for page_index in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let ctx = session(dir.path(), page_index).await;
        let query = (0..DIM).map(|axis| number(777, axis).to_string());
        let query = query.collect::<Vec<_>>().join(", ");
        for (columns, rows) in [("id, v", 5), ("*", 5), ("v", 700), ("name", 40)] {
            let sql =
                format!("SELECT {columns} FROM t ORDER BY array_distance(v, [{query}]), id LIMIT {rows}");
            text(&ctx, "SET hnsw.mode = 'off'").await;
            let right = text(&ctx, &sql).await;
            for mode in ["auto", "exact"] {
                text(&ctx, &format!("SET hnsw.mode = '{mode}'")).await;
                let plan = text(&ctx, &format!("EXPLAIN ANALYZE {sql}")).await;
                let read = metric(&plan, "VectorScanExec", "bytes_read");
                assert!(read >= VECTOR_BYTES, "{plan}");
                assert!(read < VECTOR_BYTES * 3 / 2, "{columns} {rows}: {read}\n{plan}");
                assert_eq!(text(&ctx, &sql).await, right, "{mode} {columns} {rows}");
            }
        }
    }
}
