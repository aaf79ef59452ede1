//! Array literals of numbers, folded when they are planned.
//!
//! DataFusion plans `[0.12, 0.34, ...]` as a call of `make_array` with one literal for each number,
//! and every analyzer and optimizer rule then walks all of them: for an embedding of 384 numbers
//! that is most of the planning time. The simplifier would fold the call to one list in the end;
//! [`ArrayLiteralFolder`] does it at the start, with the same type and the same column name.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions_nested::expr_fn::make_array;
use datafusion::functions_nested::make_array::{MakeArray, make_array_udf};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::SessionContext;

use crate::sql::session::rebuild;

/// Shorter array literals are left alone: there is nothing to gain, and the plans of everyday
/// queries stay as DataFusion prints them.
pub const MIN_NUMBERS: usize = 16;

/// Folds an array literal whose elements are all numeric literals into one list literal.
///
/// Type and value are those that `make_array` gives, and an alias keeps the column name that
/// `make_array` would have had. Arrays with a NULL or with anything but numbers are not touched.
/// Two things are visible: a query that selects the bare array reports the column as not nullable
/// already before optimisation, and not only after it; and a function called by one of its other
/// names (`list_distance`), in a column that the query does not name, shows the folded array in the
/// name that DataFusion makes up, because that is the printed expression and not its schema name.
#[derive(Debug)]
pub struct ArrayLiteralFolder {
    min_numbers: usize,
}

impl ArrayLiteralFolder {
    /// Folds literals of at least `min_numbers` numbers.
    pub const fn new(min_numbers: usize) -> Self {
        Self { min_numbers }
    }
}

impl Default for ArrayLiteralFolder {
    fn default() -> Self {
        Self::new(MIN_NUMBERS)
    }
}

impl ExprPlanner for ArrayLiteralFolder {
    fn plan_array_literal(&self, exprs: Vec<Expr>, _schema: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        if exprs.is_empty() || exprs.len() < self.min_numbers {
            return Ok(PlannerResult::Original(exprs));
        }
        let Some(numbers) = list_of_numbers(&exprs) else {
            return Ok(PlannerResult::Original(exprs));
        };
        let name = make_array(exprs).schema_name().to_string();
        Ok(PlannerResult::Planned(Expr::Literal(numbers, None).alias(name)))
    }
}

/// Puts the folder before DataFusion's own planner of array literals.
///
/// An [`ExprPlanner`] can only be registered behind the others, where no array literal arrives any
/// more, so the session's state is rebuilt around the longer list; its id and settings stay.
/// Statements prepared before the call are forgotten: `PREPARE` after it. A planner of array
/// literals that someone else put before DataFusion's keeps its precedence, and a session without
/// DataFusion's is left as it is.
pub fn register(ctx: &SessionContext, folder: ArrayLiteralFolder) {
    let mut planners = ctx.state().expr_planners().to_vec();
    // The first planner of array literals is told by what it makes of one: DataFusion's calls `make_array`.
    let plans = |planner: &Arc<dyn ExprPlanner>| plan_of_array(planner.as_ref(), folder.min_numbers);
    let first = planners.iter().map(plans).position(|plan| plan.is_some());
    if let Some(place) = first
        && plans(&planners[place]) == Some(ArrayPlan::Call)
    {
        planners.insert(place, Arc::new(folder));
        rebuild(ctx, |state| state.with_expr_planners(planners));
    }
}

/// What a planner makes of an array literal of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArrayPlan {
    /// A call of DataFusion's `make_array`.
    Call,
    /// Something else.
    Other,
}

/// What a planner makes of so many numbers; `None` if it leaves them to the next planner.
fn plan_of_array(planner: &dyn ExprPlanner, numbers: usize) -> Option<ArrayPlan> {
    let numbers = vec![lit(0.5); numbers.max(1)];
    match planner.plan_array_literal(numbers, &DFSchema::empty()) {
        Ok(PlannerResult::Original(_)) => None,
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call))) if call.func.inner().is::<MakeArray>() => {
            Some(ArrayPlan::Call)
        }
        Ok(PlannerResult::Planned(_)) | Err(_) => Some(ArrayPlan::Other),
    }
}

/// The list that `make_array` makes of these literals; `None` if one is not a number.
fn list_of_numbers(exprs: &[Expr]) -> Option<ScalarValue> {
    let values: ArrayRef = if let Some(integers) = all(exprs, integer) {
        Arc::new(Int64Array::from(integers))
    } else if let Some(floats) = all(exprs, float) {
        Arc::new(Float64Array::from(floats))
    } else {
        let numbers = all(exprs, number)?;
        let types: Vec<_> = numbers.iter().map(|number| number.data_type()).collect();
        let common = make_array_udf().coerce_types(&types).ok()?;
        let cast = numbers.iter().zip(&common).map(|(number, to)| number.cast_to(to));
        ScalarValue::iter_to_array(cast.collect::<Result<Vec<_>>>().ok()?).ok()?
    };
    Some(SingleRowListArrayBuilder::new(values).build_list_scalar())
}

/// Every expression as a value, or nothing.
fn all<'a, T>(exprs: &'a [Expr], value: impl Fn(&'a ScalarValue) -> Option<T>) -> Option<Vec<T>> {
    let value = |expr: &'a Expr| match expr {
        Expr::Literal(scalar, None) => value(scalar),
        _ => None,
    };
    exprs.iter().map(value).collect()
}

fn integer(scalar: &ScalarValue) -> Option<i64> {
    match scalar {
        ScalarValue::Int64(number) => *number,
        _ => None,
    }
}

/// Integers among floats become floats, as DataFusion's cast makes them.
#[expect(clippy::cast_precision_loss, reason = "the cast that DataFusion does")]
fn float(scalar: &ScalarValue) -> Option<f64> {
    match scalar {
        ScalarValue::Float64(number) => *number,
        ScalarValue::Int64(number) => number.map(|number| number as f64),
        _ => None,
    }
}

fn number(scalar: &ScalarValue) -> Option<&ScalarValue> {
    (scalar.data_type().is_numeric() && !scalar.is_null()).then_some(scalar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::common::config::Dialect;
    use datafusion::prelude::SessionConfig;

    fn sessions(config: &SessionConfig) -> [SessionContext; 2] {
        let plain = SessionContext::new_with_config(config.clone());
        let folding = SessionContext::new_with_config(config.clone());
        register(&folding, ArrayLiteralFolder::new(1));
        [plain, folding]
    }

    /// Names, types and rows; or the error.
    async fn outcome(ctx: &SessionContext, sql: &str) -> Result<String> {
        let frame = ctx.sql(sql).await?;
        let columns = |schema: &datafusion::arrow::datatypes::Schema| {
            schema
                .fields()
                .iter()
                .map(|f| format!("{} {}\n", f.name(), f.data_type()))
                .collect::<String>()
        };
        let planned = columns(frame.schema().as_arrow());
        let batches = frame.collect().await?;
        let ran = batches
            .first()
            .map(|batch| columns(&batch.schema()))
            .unwrap_or_default();
        Ok(format!("{planned}{ran}{}", pretty_format_batches(&batches)?))
    }

    const ARRAYS: &[&str] = &[
        "[1, 2, 3]",
        "[]",
        "[1]",
        "[-1, +2, - 3]",
        "[- -1, -(2), 3]",
        "[1.5, 2.25, -3.125]",
        "[1, 2.5]",
        "[2.5, 1, -7]",
        "[1e300, -1e-300, 0.0, -0.0, 1e400, 5e-324]",
        "[9007199254740993, 1.0]",
        "[9223372036854775807, -9223372036854775808]",
        "[18446744073709551615, 1]",
        "[18446744073709551615, -1]",
        "[18446744073709551615, 0.5]",
        "[99999999999999999999999, 1]",
        "[1_000, 2_0.5]",
        "[1, NULL, 3]",
        "[NULL, NULL]",
        "[1, 'a']",
        "['1', 2.5]",
        "[true, 1]",
        "[1, 2 + 3]",
        "[x'01', 1]",
        "[CAST(1 AS INT), 2]",
        "[[1, 2], [3.5, 4]]",
        "[[1, 2], NULL]",
        "ARRAY[1, 2]",
        "make_array(1, 2)",
        "[0.1, 0.2, 0.30000000000000004]",
        "[1.00, 22.5, 333.125]",
        "[interval '1 day', 2]",
    ];

    const QUERIES: &[&str] = &[
        "SELECT {}",
        "SELECT {} AS v",
        "SELECT {}, {} AS w",
        "SELECT {}[1]",
        "SELECT array_length({})",
        "SELECT {} = {}",
        "SELECT unnest({})",
        "SELECT * FROM unnest({})",
        "SELECT * FROM (VALUES ({})) AS t(v)",
        "SELECT * FROM (SELECT {}) AS t",
        "SELECT {} UNION ALL SELECT {}",
        "SELECT arrow_typeof({})",
        "SELECT arrow_cast({}, 'FixedSizeList(2 x Float32)')",
        "SELECT x, array_distance(v, {}) FROM (VALUES (1, [1.0, 2.0]), (2, [3.0, 1.0]), (3, NULL)) AS t(x, v)
           ORDER BY array_distance(v, {}), x",
        "SELECT array_append({}, 7), array_concat({}, [1.5])",
        "SELECT count(*), {} FROM (VALUES (1), (2)) AS t(x) GROUP BY {}",
        "SELECT CASE WHEN x = 1 THEN {} END FROM (VALUES (1), (2)) AS t(x)",
        "SELECT array_agg({})",
        "SELECT first_value({}) OVER (ORDER BY x) FROM (VALUES (1), (2)) AS t(x)",
        "WITH a AS (SELECT {} AS v) SELECT a.v, b.v FROM a, a AS b WHERE a.v = b.v",
        "SELECT x FROM (VALUES (1), (2)) AS t(x) WHERE array_has({}, x)",
        "SELECT (SELECT {})",
        "SELECT {} IS NULL, coalesce(NULL, {})",
        "SELECT struct({}), map(['k'], [{}])",
    ];

    async fn compare(config: &SessionConfig) {
        let [plain, folding] = sessions(config);
        for array in ARRAYS {
            for query in QUERIES {
                let sql = query.replace("{}", array);
                let expected = outcome(&plain, &sql).await.map_err(|e| e.strip_backtrace());
                let found = outcome(&folding, &sql).await.map_err(|e| e.strip_backtrace());
                match (expected, found) {
                    (Ok(expected), Ok(found)) => assert_eq!(found, expected, "{sql}"),
                    (Err(_), Err(_)) => {}
                    (expected, found) => panic!("{sql}\nexpected {expected:?}\nfound {found:?}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn folding_changes_no_name_type_or_value() {
        compare(&SessionConfig::new()).await;
    }

    #[tokio::test]
    async fn folding_changes_no_name_type_or_value_of_decimals() {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.parse_float_as_decimal = true;
        compare(&config).await;
    }

    #[tokio::test]
    async fn folding_changes_nothing_in_other_dialects() {
        for dialect in [Dialect::PostgreSQL, Dialect::DuckDB] {
            let mut config = SessionConfig::new();
            config.options_mut().sql_parser.dialect = dialect;
            let [plain, folding] = sessions(&config);
            for sql in ["SELECT ARRAY[1, 2.5]", "SELECT ARRAY[1, 2, 3] AS v"] {
                let expected = outcome(&plain, sql).await.expect("the query runs");
                assert_eq!(
                    outcome(&folding, sql).await.expect("the query runs"),
                    expected,
                    "{sql}"
                );
            }
        }
    }

    #[tokio::test]
    async fn prepared_statements_and_tables_take_folded_arrays() {
        for ctx in sessions(&SessionConfig::new()) {
            for sql in [
                "CREATE TABLE t (v DOUBLE[]) AS VALUES ([1.0, 2.0])",
                "INSERT INTO t VALUES ([3, 4]), ([5.5, 6.5])",
                "CREATE VIEW w AS SELECT array_distance(v, [1, 2]) AS d FROM t",
                "PREPARE near AS SELECT array_distance(v, $1) AS d FROM t ORDER BY d",
            ] {
                ctx.sql(sql).await.expect(sql).collect().await.expect(sql);
            }
            let view = outcome(&ctx, "SELECT * FROM w ORDER BY d")
                .await
                .expect("the view reads");
            let prepared = outcome(&ctx, "EXECUTE near([1.0, 2.0])")
                .await
                .expect("the statement runs");
            assert_eq!(view, prepared);
            assert!(view.contains("2.8284271247461903"), "{view}");
        }
    }

    #[tokio::test]
    async fn a_long_array_is_one_literal_in_the_first_plan_and_a_short_one_is_not() {
        let ctx = SessionContext::new();
        register(&ctx, ArrayLiteralFolder::default());
        for (length, folded) in [(MIN_NUMBERS - 1, false), (MIN_NUMBERS, true)] {
            let sql = format!("SELECT array_length([{}])", vec!["0.5"; length].join(", "));
            let plan = ctx
                .state()
                .create_logical_plan(&sql)
                .await
                .expect("the query is planned");
            assert_eq!(format!("{plan:?}").contains("Literal(List("), folded, "{plan:?}");
        }
    }

    #[tokio::test]
    async fn registering_keeps_the_session_and_happens_once() {
        let ctx = SessionContext::new();
        ctx.sql("CREATE TABLE kept AS SELECT 1 AS x")
            .await
            .expect("the table is created");
        ctx.sql("SET datafusion.execution.batch_size = 77")
            .await
            .expect("the setting is made");
        let (id, creates) = (ctx.state().session_id().to_string(), creates_catalog(&ctx));
        register(&ctx, ArrayLiteralFolder::default());
        let planners = ctx.state().expr_planners().len();
        register(&ctx, ArrayLiteralFolder::default());
        assert_eq!(ctx.state().expr_planners().len(), planners);
        assert_eq!(ctx.state().session_id(), id);
        assert_eq!(ctx.session_id(), id);
        assert_eq!(creates_catalog(&ctx), creates);
        assert_eq!(ctx.state().config_options().execution.batch_size.get(), 77);
        assert!(
            outcome(&ctx, "SELECT * FROM kept")
                .await
                .expect("the table is there")
                .contains('1')
        );
    }

    fn creates_catalog(ctx: &SessionContext) -> bool {
        ctx.state()
            .config_options()
            .catalog
            .create_default_catalog_and_schema
    }
}
