//! What the extension takes for granted about DataFusion, Arrow and object_store, and what no signature promises: each
//! by itself, so that an upgrade says which file to open.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::functions_nested::cosine_distance::{CosineDistance, cosine_distance_udf};
use datafusion::functions_nested::distance::{ArrayDistance, array_distance_udf};
use datafusion::functions_nested::inner_product::{InnerProduct, inner_product_udf};
use datafusion::functions_nested::make_array::MakeArray;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::functions_window::row_number::RowNumber;
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::planner::PlannerResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, ScalarFunctionArgs, ScalarUDF, col, lit,
};
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn list(numbers: &[f64]) -> ArrayRef {
    let values = Arc::new(Float64Array::from(numbers.to_vec()));
    let field = Arc::new(Field::new("item", DataType::Float64, true));
    Arc::new(ListArray::new(
        field,
        OffsetBuffer::from_lengths([numbers.len()]),
        values,
        None,
    ))
}

fn call(function: &Arc<ScalarUDF>, left: &[f64], right: &[f64]) -> Option<f64> {
    let args = vec![
        ColumnarValue::Array(list(left)),
        ColumnarValue::Array(list(right)),
    ];
    let arg_fields = args
        .iter()
        .map(|arg| Arc::new(Field::new("v", arg.data_type(), true)));
    let args = ScalarFunctionArgs {
        arg_fields: arg_fields.collect(),
        args,
        number_rows: 1,
        return_field: Arc::new(Field::new("d", DataType::Float64, true)),
        config_options: Arc::new(ConfigOptions::new()),
    };
    let value = function.invoke_with_args(args).expect("a distance");
    let array = value.into_array(1).expect("one value");
    let array = array.as_primitive::<Float64Type>();
    array.is_valid(0).then(|| array.value(0))
}

#[test]
fn the_three_distances_add_one_product_after_the_other_in_f64() {
    let mut rng = StdRng::seed_from_u64(1);
    for dim in 1..100 {
        let mut vector = || {
            (0..dim)
                .map(|_| rng.random_range(-1.0..1.0))
                .collect::<Vec<f64>>()
        };
        let (a, b) = (vector(), vector());
        let (mut dot, mut a_sq, mut b_sq, mut apart) = (0.0, 0.0, 0.0, 0.0);
        for (a, b) in a.iter().zip(&b) {
            dot += a * b;
            a_sq += a * a;
            b_sq += b * b;
            apart += (a - b) * (a - b);
        }
        for (function, expected) in [
            (array_distance_udf(), f64::sqrt(apart)),
            (
                cosine_distance_udf(),
                1.0 - dot / (f64::sqrt(a_sq) * f64::sqrt(b_sq)),
            ),
            (inner_product_udf(), dot),
        ] {
            let found = call(&function, &a, &b).expect("a distance");
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{} of {dim} numbers: {found} is not {expected}; see src/hnsw/exact.rs",
                function.name()
            );
        }
    }
    let zero_is_null = call(&cosine_distance_udf(), &[0.0], &[1.0]);
    assert_eq!(
        zero_is_null, None,
        "a cosine of a zero vector; see src/hnsw/exact.rs"
    );
}

#[test]
fn each_distance_has_a_type_of_its_own_under_all_of_its_names() {
    let state = SessionContext::new().state();
    let is = |name: &str, check: fn(&ScalarUDF) -> bool| {
        let function = state.scalar_functions().get(name);
        assert!(
            function.is_some_and(|f| check(f)),
            "{name}; see src/sql/recognize/sort_key.rs"
        );
    };
    for name in ["array_distance", "list_distance"] {
        is(name, |f| f.inner().is::<ArrayDistance>());
    }
    is("cosine_distance", |f| f.inner().is::<CosineDistance>());
    for name in ["inner_product", "dot_product"] {
        is(name, |f| f.inner().is::<InnerProduct>());
    }
    let Expr::WindowFunction(function) = row_number() else {
        panic!("row_number is no window function; see src/sql/rules/ranked_join.rs")
    };
    assert!(
        matches!(&function.fun, WindowFunctionDefinition::WindowUDF(udf) if udf.inner().is::<RowNumber>()),
        "row_number; see src/sql/rules/ranked_join.rs"
    );
}

#[test]
fn an_array_literal_is_a_call_of_make_array_and_then_one_list_of_doubles() {
    const SEE: &str = "see src/sql/rules/fold_array_literal.rs";
    let state = SessionContext::new().state();
    let plan = |numbers: Vec<Expr>| {
        let planned = state.expr_planners().iter().find_map(|planner| {
            match planner.plan_array_literal(numbers.clone(), &DFSchema::empty()) {
                Ok(PlannerResult::Planned(expr)) => Some(expr),
                _ => None,
            }
        });
        planned.expect(SEE)
    };
    let planned = plan(vec![lit(1_i64), lit(0.5)]);
    assert!(
        matches!(&planned, Expr::ScalarFunction(call) if call.func.inner().is::<MakeArray>()),
        "{planned}; {SEE}"
    );
    assert_eq!(
        planned.schema_name().to_string(),
        "make_array(Int64(1),Float64(0.5))",
        "{SEE}"
    );
    let list = DataType::new_list(DataType::Float64, true);
    let schema = DFSchema::empty();
    let expr = state.create_physical_expr(planned, &schema).expect(SEE);
    assert_eq!(expr.data_type(schema.as_arrow()).expect(SEE), list, "{SEE}");
}

#[test]
fn the_name_of_a_window_prints_the_keys_that_it_orders_by() {
    // If it gave them their schema names, binding a distance would need no alias.
    let key = array_distance_udf().call(vec![col("v"), lit(ScalarValue::Null).alias("other")]);
    let window = row_number()
        .order_by(vec![key.sort(true, false)])
        .build()
        .expect("a window");
    let name = window.schema_name().to_string();
    assert!(
        name.contains("NULL AS other"),
        "{name}; see src/sql/rules/bind_query.rs"
    );
}

#[test]
fn our_rules_stand_where_they_must_among_datafusions() {
    let ctx = SessionContext::new();
    datafusion_hnsw::register(&ctx).expect("the extension registers");
    let state = ctx.state();
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let analyzer = names(state.analyzer().rules.iter().map(|rule| rule.name()).collect());
    assert_eq!(
        analyzer,
        [
            "resolve_grouping_function",
            "type_coercion",
            "hnsw_create_index",
            "hnsw_widen_lists",
            "hnsw_bind",
            "hnsw_say_unoptimized"
        ],
        "types are settled before distances are bound; see src/sql/rules/bind_query.rs"
    );
    let optimizer = names(state.optimizers().iter().map(|rule| rule.name()).collect());
    let [.., projections, rank, knn, say] = optimizer.as_slice() else {
        panic!("{optimizer:?}; see src/sql/session.rs")
    };
    assert_eq!(
        [projections.as_str(), rank, knn, say],
        ["optimize_projections", "hnsw_rank", "hnsw_knn", "hnsw_say"],
        "limits and projections are where they belong before a search is looked for; see src/sql/rules/knn.rs"
    );
    for rule in ["push_down_limit", "push_down_filter", "simplify_expressions"] {
        assert!(
            optimizer.contains(&rule.to_owned()),
            "{rule} is gone; see src/sql/rules/knn.rs"
        );
    }
    let physical = names(
        state
            .physical_optimizers()
            .iter()
            .map(|rule| rule.name())
            .collect(),
    );
    assert_eq!(physical[0], "hnsw_seal", "see src/sql/session.rs");
    assert_eq!(
        physical[physical.len() - 2..],
        ["hnsw_unseal", "SanityCheckPlan"],
        "the plan is checked last and as it will run; see src/sql/session.rs"
    );
}

/// A table `t (id, num, v)` of two Parquet files in a directory.
async fn table(ctx: &SessionContext, dir: &Path) {
    for (file, first) in [("a", 1), ("b", 4)] {
        let rows: Vec<_> = (first..first + 3)
            .map(|i| format!("({i}, {}, [{i}.0, 1.0])", i % 2))
            .collect();
        let copy = format!(
            "COPY (SELECT * FROM (VALUES {}) AS t(id, num, v)) TO '{}/{file}.parquet'",
            rows.join(", "),
            dir.display()
        );
        run(ctx, &copy).await;
    }
    let create = format!(
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}/'",
        dir.display()
    );
    run(ctx, &create).await;
}

async fn run(ctx: &SessionContext, sql: &str) {
    ctx.sql(sql).await.expect(sql).collect().await.expect(sql);
}

/// The plan that the physical planner makes, before any physical rule.
async fn first_plan(ctx: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    let frame = ctx.sql(sql).await.expect(sql);
    frame.create_physical_plan().await.expect(sql)
}

fn names(plan: &Arc<dyn ExecutionPlan>) -> Vec<&str> {
    let below = plan.children().into_iter().flat_map(names);
    std::iter::once(plan.name()).chain(below).collect()
}

async fn without_physical_rules(dir: &Path) -> SessionContext {
    let state = datafusion::execution::SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_target_partitions(2))
        .with_default_features()
        .with_physical_optimizer_rules(vec![])
        .build();
    let ctx = SessionContext::new_with_state(state);
    table(&ctx, dir).await;
    ctx
}

#[tokio::test]
async fn the_first_plan_of_a_search_is_a_sort_over_projections_and_filters_over_the_scan() {
    let dir = tempfile::tempdir().expect("a directory");
    let ctx = without_physical_rules(dir.path()).await;
    let distance = "array_distance(v, [1.0, 2.0])";
    for (sql, expected) in [
        (
            format!("SELECT id, v FROM t WHERE num > 0 ORDER BY {distance} LIMIT 2"),
            vec!["SortExec(TopK)", "ProjectionExec", "FilterExec", "DataSourceExec"],
        ),
        (
            format!("SELECT id, {distance} AS d FROM t ORDER BY d LIMIT 2 OFFSET 1"),
            vec![
                "GlobalLimitExec",
                "SortExec(TopK)",
                "ProjectionExec",
                "DataSourceExec",
            ],
        ),
    ] {
        let plan = first_plan(&ctx, &sql).await;
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        assert_eq!(
            names(&plan),
            expected,
            "{sql}\n{shown}see src/sql/rules/seal_search.rs"
        );
    }
}

#[tokio::test]
async fn a_scan_of_parquet_files_is_one_node_with_whole_files_and_nothing_that_we_drop() {
    const SEE: &str = "see src/rows/scan.rs";
    let dir = tempfile::tempdir().expect("a directory");
    let ctx = without_physical_rules(dir.path()).await;
    let provider = ctx.table_provider("t").await.expect("the table");
    let filter = col("num").gt(lit(0));
    let plan = provider
        .scan(&ctx.state(), None, &[filter], None)
        .await
        .expect("a scan");
    let scan = plan.downcast_ref::<DataSourceExec>().expect(SEE);
    let (config, source) = scan.downcast_to_file_source::<ParquetSource>().expect(SEE);
    // What `TableFiles::of` keeps: the store, the files, the adapter, and of the source its schema and options.
    let FileScanConfig {
        object_store_url: _,
        file_groups,
        constraints: _,
        limit,
        preserve_order,
        output_ordering: _,
        file_compression_type: _,
        file_source: _,
        batch_size,
        expr_adapter_factory: _,
        output_partitioning: _,
        .. // `statistics`, which is private.
    } = config;
    assert_eq!(
        (*limit, *batch_size, *preserve_order),
        (None, None, false),
        "{SEE}"
    );
    let files: Vec<_> = file_groups.iter().flat_map(|group| group.iter()).collect();
    assert_eq!(files.len(), 2, "{SEE}");
    for file in files {
        // A field more does not compile here.
        let PartitionedFile {
            object_meta,
            partition_values,
            range,
            statistics: _,
            ordering: _,
            extensions: _,
            metadata_size_hint,
            table_reference: _,
            arrow_schema,
        } = file;
        assert!(object_meta.size > 0 && partition_values.is_empty(), "{SEE}");
        assert!(
            range.is_none() && metadata_size_hint.is_none() && arrow_schema.is_none(),
            "{SEE}"
        );
    }
    let debug = format!("{source:?}");
    let mut fields = fields(&debug);
    // There when DataFusion reads encrypted files: their footers we do not read, and leave them alone.
    fields.retain(|field| *field != "encryption_factory");
    assert_eq!(
        fields,
        [
            "table_parquet_options",
            "metrics",
            "table_schema",
            "predicate",
            "parquet_file_reader_factory",
            "batch_size",
            "metadata_size_hint",
            "projection",
            "reverse_row_groups",
            "sort_order_for_reorder",
        ],
        "a field that TableFiles::read has to hand on? {SEE}"
    );
    assert!(
        FileSource::filter(source).is_none(),
        "a filter is pushed down by a rule, not by the scan; {SEE}"
    );
    let empty = provider
        .scan(&ctx.state(), Some(&vec![]), &[], None)
        .await
        .expect("a scan");
    assert_eq!(empty.schema().fields().len(), 0, "{SEE}");
}

/// The names of the fields of a struct, of its derived Debug.
fn fields(debug: &str) -> Vec<&str> {
    let body = debug.split_once('{').map_or("", |(_, body)| body);
    let (mut depth, mut quoted, mut names, mut start) = (0_i32, false, vec![], 0);
    for (at, letter) in body.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ':' if depth == 0 && body[at..].starts_with(": ") => {
                names.push(body[start..at].trim_matches([',', ' ']));
            }
            ',' if depth == 0 => start = at,
            _ => {}
        }
    }
    names
}

#[tokio::test]
async fn scalar_subqueries_are_filled_before_the_scan_below_is_asked_for_rows() {
    const SEE: &str = "see src/sql/search/subquery_results.rs";
    let dir = tempfile::tempdir().expect("a directory");
    let sql = "SELECT id FROM t WHERE num >= (SELECT min(num) FROM t)
               ORDER BY array_distance(v, (SELECT v FROM t WHERE id = 5)) LIMIT 2";
    let ctx = without_physical_rules(dir.path()).await;
    let plan = first_plan(&ctx, sql).await;
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    assert_eq!(names(&plan)[0], "ScalarSubqueryExec", "{shown}{SEE}");
    let ours = SessionContext::new();
    datafusion_hnsw::register(&ours).expect("the extension registers");
    table(&ours, dir.path()).await;
    let batches = ours
        .sql(&format!("EXPLAIN ANALYZE {sql}"))
        .await
        .expect(sql)
        .collect()
        .await
        .expect(sql);
    let shown = datafusion::arrow::util::pretty::pretty_format_batches(&batches)
        .expect("text")
        .to_string();
    assert!(
        shown.contains("query=subquery") && shown.contains("passed_through=0"),
        "{shown}\n{SEE}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn the_e_tag_of_a_local_file_is_its_inode_time_and_size() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    std::fs::write(&path, b"twelve bytes").expect("written");
    let meta = std::fs::metadata(&path).expect("the file is there");
    let micros = i128::from(meta.mtime()) * 1_000_000 + i128::from(meta.mtime_nsec()) / 1_000;
    let store = LocalFileSystem::new_with_prefix(dir.path()).expect("a store");
    let head = store
        .head(&object_store::path::Path::from("file"))
        .await
        .expect("the file is there");
    assert_eq!(
        head.e_tag,
        Some(format!("{:x}-{micros:x}-{:x}", meta.ino(), meta.len())),
        "see src/rows/footer.rs"
    );
    assert_eq!(
        i128::from(head.last_modified.timestamp_micros()),
        micros,
        "see src/rows/footer.rs"
    );
}

#[test]
fn the_types_of_numbers_print_as_sidecars_name_them() {
    for (item, name) in [
        (DataType::Float16, "Float16"),
        (DataType::Float32, "Float32"),
        (DataType::Float64, "Float64"),
    ] {
        assert_eq!(
            item.to_string(),
            name,
            "see src/create.rs and ScanSpec::holds_bits in src/sql/search/scan.rs"
        );
    }
}
