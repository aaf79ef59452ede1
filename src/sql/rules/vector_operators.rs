//! pgvector's operators between vectors, refused with what to write instead.
//!
//! SQL has `<=>` already: it is MySQL's name for IS NOT DISTINCT FROM. Between two vectors it would run, and order rows
//! by whether they equal the query. This is refused wherever SQL is planned. Most dialects do not parse the others:
//! for those see [`name_operator`](crate::sql::ddl::statement::name_operator).

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::sql::ddl::statement::call;

/// Longer operands are shown as `...`.
const LONGEST_SHOWN: usize = 40;

/// Refuses operators between vectors while SQL is planned.
#[derive(Debug)]
pub(crate) struct VectorOperators;

/// Adds [`VectorOperators`] to a session.
///
/// # Errors
///
/// None today; DataFusion's method may give one.
pub(crate) fn register(ctx: &SessionContext) -> Result<()> {
    ctx.state_ref()
        .write()
        .register_expr_planner(Arc::new(VectorOperators))
}

impl ExprPlanner for VectorOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match &expr.op {
            BinaryOperator::Spaceship => "<=>",
            BinaryOperator::LtDashGt => "<->",
            BinaryOperator::Custom(custom) if call(custom, "v", "q").is_some() => custom.as_str(),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let [left, right] = [&expr.left, &expr.right].map(|side| Side::of(side, schema));
        // A vector beside NULL is compared with it, as MySQL does. DataFusion itself cannot do anything with `<->`.
        let distance = match (left, right) {
            (Side::Vector, Side::Vector | Side::Text) | (Side::Text, Side::Vector) => true,
            _ => operator != "<=>",
        };
        if !distance {
            return Ok(PlannerResult::Original(expr));
        }
        let [left, right] = [&expr.left, &expr.right].map(shown);
        let Some(call) = call(operator, &left, &right) else {
            return Ok(PlannerResult::Original(expr));
        };
        if operator == "<=>" {
            return plan_err!(
                "there is no operator <=> between vectors; write {call} for their distance, or {left} IS NOT DISTINCT FROM {right} to compare them"
            );
        }
        plan_err!("there is no operator {operator}; write {call}")
    }
}

/// What stands at one side of an operator.
#[derive(Clone, Copy)]
enum Side {
    Vector,
    /// A text, which pgvector reads as a vector, or a parameter, of which no type is known.
    Text,
    Other,
}

impl Side {
    fn of(expr: &Expr, schema: &DFSchema) -> Self {
        match expr.get_type(schema) {
            Ok(data_type) if is_vector(&data_type) => Self::Vector,
            Ok(data_type) if data_type.is_string() => Self::Text,
            _ if matches!(expr, Expr::Placeholder(_)) => Self::Text,
            _ => Self::Other,
        }
    }
}

fn is_vector(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => item.data_type().is_numeric(),
        _ => false,
    }
}

fn shown(expr: &Expr) -> String {
    let name = match expr {
        Expr::Column(column) => column.name.clone(),
        other => other.human_display().to_string(),
    };
    if name.chars().count() > LONGEST_SHOWN {
        "...".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::ddl::statement::HnswSessionExt as _;

    async fn session(dialect: &str) -> SessionContext {
        let ctx = SessionContext::new();
        crate::register(&ctx).expect("the functions are taken");
        for sql in [
            &format!("SET datafusion.sql_parser.dialect = '{dialect}'"),
            "CREATE TABLE t (id BIGINT, name VARCHAR, v DOUBLE[], tags VARCHAR[]) AS VALUES
                (1, 'a', [1.0, 2.0], ['x']), (2, NULL, NULL, NULL)",
        ] {
            ctx.sql(sql).await.expect(sql).collect().await.expect(sql);
        }
        ctx
    }

    async fn error(ctx: &SessionContext, sql: &str) -> String {
        ctx.hnsw_sql(sql).await.expect_err(sql).to_string()
    }

    #[tokio::test]
    async fn an_operator_of_pgvector_is_an_error_that_says_what_to_write() {
        for dialect in ["generic", "postgresql"] {
            let ctx = session(dialect).await;
            let vector = if dialect == "generic" {
                "[1.0, 2.0]"
            } else {
                "ARRAY[1.0, 2.0]"
            };
            for (operator, told) in [
                ("<->", "array_distance(v, "),
                ("<=>", "cosine_distance(v, "),
                ("<#>", "negative_inner_product(v, "),
                ("<+>", "no function"),
            ] {
                let sql = format!("SELECT id FROM t ORDER BY v {operator} {vector} LIMIT 1");
                let error = error(&ctx, &sql).await;
                assert!(
                    error.contains(&format!("no operator {operator}")) && error.contains(told),
                    "{dialect} {sql}: {error}"
                );
            }
        }
    }

    #[tokio::test]
    async fn plain_sql_refuses_the_operator_that_would_order_by_something_else() {
        let ctx = session("generic").await;
        for sql in [
            "SELECT id FROM t ORDER BY v <=> [1.0, 2.0] LIMIT 1",
            "SELECT id FROM t ORDER BY [1, 2] <=> v LIMIT 1",
            "SELECT id FROM t ORDER BY v <=> '[1, 2]' LIMIT 1",
            "SELECT id, v <=> (SELECT v FROM t WHERE id = 1) AS d FROM t",
            "SELECT a.id FROM t a JOIN t b ON a.v <=> b.v",
            "SELECT id FROM t ORDER BY v <=> $1",
        ] {
            let error = ctx.sql(sql).await.expect_err(sql).to_string();
            assert!(
                error.contains("cosine_distance(") && error.len() < 300,
                "{sql}: {error}"
            );
        }
        let long = format!("SELECT v <=> [{}] FROM t", vec!["0.5"; 384].join(", "));
        let error = ctx.sql(&long).await.expect_err("refused").to_string();
        assert!(error.contains("cosine_distance(v, ...)"), "{error}");
    }

    #[tokio::test]
    async fn values_that_are_no_vectors_are_compared_as_before() {
        let ctx = session("generic").await;
        for (sql, expected) in [
            ("SELECT count(*) FROM t WHERE name <=> NULL", 1),
            ("SELECT count(*) FROM t WHERE id <=> 1", 1),
            ("SELECT count(*) FROM t WHERE tags <=> ['x']", 1),
            ("SELECT count(*) FROM t WHERE v <=> NULL", 1),
            (
                "SELECT count(*) FROM t WHERE v IS NOT DISTINCT FROM [1.0, 2.0]",
                1,
            ),
            ("SELECT count(*) FROM t WHERE name || '<->' = 'a<->' -- <#>", 1),
        ] {
            let batches = ctx.hnsw_sql(sql).await.expect(sql).collect().await.expect(sql);
            let text = datafusion::arrow::util::pretty::pretty_format_batches(&batches)
                .expect("it can be shown")
                .to_string();
            assert!(text.contains(&format!("| {expected} ")), "{sql}: {text}");
        }
        // An error of another kind stays as it is.
        let other = error(&ctx, "SELECT '<->' FROM t WHERE").await;
        assert!(!other.contains("no operator"), "{other}");
    }
}
