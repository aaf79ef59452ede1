//! What DataFusion answers by itself, it answers with the extension: through plain `ctx.sql`, in every mode.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use tempfile::TempDir;

use crate::compare::{Answer, answer};
use crate::query::Query;

const MODES: [&str; 3] = ["off", "exact", "auto"];

/// Seventeen numbers, one of them a decimal.
const VECTOR: &str = "[0.25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]";

async fn run(ctx: &SessionContext, sql: &str) {
    ctx.sql(sql).await.expect(sql).collect().await.expect(sql);
}

async fn rows(ctx: &SessionContext, sql: &str) -> Result<Answer, String> {
    answer(ctx, &Query::plain(sql)).await
}

async fn explain(ctx: &SessionContext, sql: &str) -> String {
    let plan = rows(ctx, &format!("EXPLAIN {sql}"))
        .await
        .expect("it is explained");
    plan.rows.concat().join("\n")
}

/// Six rows at 0, 5, 1, -1, 2, -2 on the first axis: ids 1 to 6 are at 0.25, 4.75, 0.75, 1.25, 1.75, 2.25 from the vector.
async fn write(dir: &Path, more: &str) {
    let path = dir.join("t.parquet");
    let sql = format!(
        "COPY (SELECT id, num, array_resize(make_array(CAST(x AS DOUBLE)), 17, 0.0) AS v{more} FROM (VALUES
           (1, 0, 0), (2, 5, 1), (3, 1, 0), (4, -1, 2), (5, 2, 5), (6, -2, 20)) AS t(id, x, num)) TO '{}'",
        path.display()
    );
    run(&SessionContext::new(), &sql).await;
}

async fn open(ctx: &SessionContext, dir: &Path) {
    let path = dir.join("t.parquet");
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'",
        path.display()
    );
    run(ctx, &sql).await;
}

/// A session without the extension, and one with it and an index.
async fn sessions(dir: &TempDir) -> [SessionContext; 2] {
    write(dir.path(), "").await;
    let (plain, ours) = (SessionContext::new(), SessionContext::new());
    datafusion_hnsw::register(&ours).expect("the extension registers");
    for ctx in [&plain, &ours] {
        open(ctx, dir.path()).await;
    }
    run(&ours, "SET hnsw.metric = 'l2'").await;
    run(&ours, "CREATE INDEX ON t USING hnsw (v)").await;
    [plain, ours]
}

#[tokio::test]
async fn windows_and_ordered_aggregates_over_a_search_run_in_every_mode() {
    let dir = tempfile::tempdir().expect("a directory");
    let [plain, ours] = sessions(&dir).await;
    let d = format!("array_distance(v, {VECTOR})");
    let top = format!("(SELECT * FROM t ORDER BY {d} LIMIT 4) AS s");
    for (sql, first) in [
        (
            format!("SELECT id FROM {top} QUALIFY row_number() OVER (ORDER BY {d} DESC) <= 2 ORDER BY id"),
            "4",
        ),
        (
            format!("SELECT lag(id) OVER (ORDER BY {d}) AS l, id FROM {top} ORDER BY id DESC"),
            "4",
        ),
        (
            format!("SELECT first_value(id) OVER (ORDER BY {d} DESC) AS f, id FROM {top} ORDER BY id"),
            "5",
        ),
        (
            format!("SELECT array_agg(id ORDER BY {d} DESC) AS a FROM {top}"),
            "[5, 4, 3, 1]",
        ),
        (
            format!("SELECT last_value(id ORDER BY {d}) FILTER (WHERE {d} < 1) AS l FROM {top}"),
            "3",
        ),
        (
            format!(
                "SELECT count(*) FILTER (WHERE {d} < 1) OVER (ORDER BY id) AS n, id FROM {top} ORDER BY id DESC"
            ),
            "2",
        ),
        (
            format!("SELECT DISTINCT ON (num) id, {d} AS d FROM {top} ORDER BY num DESC, {d}"),
            "5",
        ),
    ] {
        let expected = rows(&plain, &sql).await.expect("DataFusion answers");
        assert_eq!(expected.rows[0][0], first, "{sql}");
        for mode in MODES {
            run(&ours, &format!("SET hnsw.mode = '{mode}'")).await;
            let found = rows(&ours, &sql)
                .await
                .unwrap_or_else(|error| panic!("{mode}: {sql}\n{error}"));
            assert_eq!(
                (&found.schema, &found.rows),
                (&expected.schema, &expected.rows),
                "{mode}: {sql}"
            );
        }
    }
    // A column that has only the name that is made up for it keeps that name in every mode.
    let bare = format!("SELECT array_agg(id ORDER BY {d}), sum(id) FILTER (WHERE {d} < 1) FROM {top}");
    let mut names = vec![];
    for mode in MODES {
        run(&ours, &format!("SET hnsw.mode = '{mode}'")).await;
        let found = rows(&ours, &bare)
            .await
            .unwrap_or_else(|error| panic!("{mode}: {bare}\n{error}"));
        assert_eq!(found.rows, [["[1, 3, 4, 5]", "4"]], "{mode}");
        names.push(found.schema);
    }
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
}

#[tokio::test]
async fn a_filter_that_divides_runs_where_datafusions_own_plan_does_and_fails_as_it_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let [plain, ours] = sessions(&dir).await;
    let order = format!("ORDER BY array_distance(v, {VECTOR}) LIMIT 3");
    for pushed in [true, false] {
        for ctx in [&plain, &ours] {
            run(
                ctx,
                &format!("SET datafusion.execution.parquet.pushdown_filters = {pushed}"),
            )
            .await;
        }
        for mode in MODES {
            run(&ours, &format!("SET hnsw.mode = '{mode}'")).await;
            let guarded = format!("SELECT id FROM t WHERE num <> 0 AND 10 / num > 2 {order}");
            if pushed {
                assert_eq!(
                    rows(&plain, &guarded).await.expect("DataFusion answers").rows,
                    [["4"], ["2"]]
                );
            }
            if pushed || mode != "off" {
                assert_eq!(
                    rows(&ours, &guarded).await.expect(mode).rows,
                    [["4"], ["2"]],
                    "{mode}"
                );
            }
            let divides = format!("SELECT id FROM t WHERE 10 / num > 2 {order}");
            let expected = rows(&plain, &divides).await.expect_err("a number is zero");
            assert_eq!(
                rows(&ours, &divides).await.expect_err(mode),
                expected,
                "{mode}, {pushed}"
            );
        }
    }
}

/// A function of a user that is called as DataFusion's is, and counts rows backwards.
fn own_function(name: &str) -> ScalarUDF {
    let list = DataType::new_list(DataType::Float64, true);
    let fun = |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        #[expect(clippy::cast_precision_loss, reason = "six rows")]
        let backwards = (0..arrays[0].len()).map(|row| -(row as f64));
        Ok(ColumnarValue::Array(
            Arc::new(Float64Array::from_iter_values(backwards)) as ArrayRef,
        ))
    };
    create_udf(
        name,
        vec![list.clone(), list],
        DataType::Float64,
        Volatility::Immutable,
        Arc::new(fun),
    )
}

#[tokio::test]
async fn a_function_of_the_users_own_by_the_name_of_a_distance_is_not_answered_through_an_index() {
    let dir = tempfile::tempdir().expect("a directory");
    let [_, ours] = sessions(&dir).await;
    for name in ["array_distance", "cosine_distance", "inner_product"] {
        ours.register_udf(own_function(name));
        for direction in ["", " DESC"] {
            let sql = format!("SELECT id FROM t ORDER BY {name}(v, {VECTOR}){direction} LIMIT 2");
            for mode in MODES {
                run(&ours, &format!("SET hnsw.mode = '{mode}'")).await;
                let expected = if direction.is_empty() {
                    [["6"], ["5"]]
                } else {
                    [["1"], ["2"]]
                };
                assert_eq!(
                    rows(&ours, &sql).await.expect(mode).rows,
                    expected,
                    "{mode}: {sql}"
                );
                let plan = explain(&ours, &sql).await;
                assert!(!plan.contains("VectorScanExec"), "{plan}");
            }
        }
        // Among many rows: the join that a rank by distance is answered with.
        let ranked = format!(
            "SELECT a, b FROM (SELECT a.id AS a, b.id AS b,
               row_number() OVER (PARTITION BY a.id ORDER BY {name}(a.v, b.v)) AS r FROM t AS a CROSS JOIN t AS b)
             WHERE r <= 1 ORDER BY a"
        );
        let plan = explain(&ours, &ranked).await;
        assert!(
            !plan.contains("VectorJoinExec") && !plan.contains("VectorScanExec"),
            "{plan}"
        );
    }
}

#[tokio::test]
async fn a_session_of_a_copied_configuration_is_registered_by_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let [_, first] = sessions(&dir).await;
    run(&first, "SET hnsw.ef_search = 77").await;
    let copies: [SessionContext; 2] = [
        SessionContext::new_with_config(first.copied_config()),
        SessionContext::new_with_config_rt(first.copied_config(), first.runtime_env()),
    ];
    for copy in copies {
        for _twice in 0..2 {
            datafusion_hnsw::register(&copy).expect("the extension registers");
        }
        open(&copy, dir.path()).await;
        let sql = format!("SELECT id FROM t ORDER BY array_distance(v, {VECTOR}) LIMIT 2");
        let plan = explain(&copy, &sql).await;
        assert!(plan.contains("strategy=index, ef_search=77"), "{plan}");
        assert_eq!(rows(&copy, &sql).await.expect("it runs").rows, [["1"], ["3"]]);
        let indexes = rows(&copy, "SELECT state FROM hnsw_indexes()")
            .await
            .expect("the functions are there");
        assert_eq!(indexes.rows, [["fresh"]]);
        let state = copy.state();
        let ours = |name: &str| name.starts_with("hnsw_");
        let analyzer = state.analyzer().rules.iter().filter(|rule| ours(rule.name()));
        let optimizer = state.optimizers().iter().filter(|rule| ours(rule.name()));
        let physical = state
            .physical_optimizers()
            .iter()
            .filter(|rule| ours(rule.name()));
        assert_eq!((analyzer.count(), optimizer.count(), physical.count()), (4, 3, 2));
    }
    // The first session goes on.
    let sql = format!("SELECT id FROM t ORDER BY array_distance(v, {VECTOR}) LIMIT 2");
    assert!(
        explain(&first, &sql)
            .await
            .contains("strategy=index, ef_search=77")
    );
}

#[tokio::test]
async fn a_sidecar_directory_without_a_store_costs_the_index_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let [_, ours] = sessions(&dir).await;
    run(&ours, "SET hnsw.sidecar_dir = 's3://unregistered/x'").await;
    let sql = format!("SELECT id FROM t ORDER BY array_distance(v, {VECTOR}) LIMIT 2");
    for mode in MODES {
        run(&ours, &format!("SET hnsw.mode = '{mode}'")).await;
        for sql in [
            sql.clone(),
            format!("SELECT id FROM vector_search('t', 'v', {VECTOR}, 2, 'metric=l2')"),
        ] {
            assert_eq!(
                rows(&ours, &sql).await.expect(mode).rows,
                [["1"], ["3"]],
                "{mode}: {sql}"
            );
        }
        let join = "SELECT id, t_id FROM vector_join('t', 'v', 't', 'v', 1, 'metric=l2') WHERE id = 3";
        assert_eq!(rows(&ours, join).await.expect(mode).rows, [["3", "3"]], "{mode}");
    }
    let plan = explain(&ours, &sql).await;
    assert!(
        plan.contains(
            "reason=sidecar_dir: hnsw.sidecar_dir: no object store is registered for s3://unregistered"
        ),
        "{plan}"
    );
}

#[tokio::test]
async fn a_table_that_cannot_be_searched_is_joined_by_datafusions_own_plan() {
    let dir = tempfile::tempdir().expect("a directory");
    // Our own reads number the rows under this name.
    write(dir.path(), ", id AS __datafusion_hnsw_row").await;
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    datafusion_hnsw::register(&ctx).expect("the extension registers");
    open(&ctx, dir.path()).await;
    let join =
        "SELECT id, t_id, _distance FROM vector_join('t', 'v', 't', 'v', 2, 'metric=l2') WHERE id IN (2, 6)
                ORDER BY id, _distance, t_id";
    let mut found = vec![];
    for mode in MODES {
        run(&ctx, &format!("SET hnsw.mode = '{mode}'")).await;
        let answer = rows(&ctx, join)
            .await
            .unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert_eq!(answer.rows.len(), 4, "{mode}");
        assert_eq!(answer.rows[3][..2], ["6", "4"], "{mode}");
        found.push(answer);
    }
    assert!(
        found.iter().all(|answer| answer.rows == found[0].rows),
        "{found:?}"
    );
}
