//! Distance functions under the names that DuckDB and pgvector give them.
//!
//! Each is another spelling of one of DataFusion's own three and becomes it when the plan is
//! simplified, so that there is one place that computes a distance and one that recognises it.
//! Where the systems differ (the cosine distance of a zero vector: NULL here, NaN there), the
//! answer is DataFusion's.

use std::sync::Arc;

use datafusion::arrow::compute::kernels::numeric::neg;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::functions_nested::cosine_distance::cosine_distance_udf;
use datafusion::functions_nested::distance::array_distance_udf;
use datafusion::functions_nested::inner_product::inner_product_udf;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;

/// Registers the names; a function that the session already has under one of them is kept.
pub fn register(ctx: &SessionContext) {
    for function in [
        OtherName::new(array_distance_udf(), false, "l2_distance", &[]),
        OtherName::new(
            cosine_distance_udf(),
            false,
            "array_cosine_distance",
            &["list_cosine_distance"],
        ),
        OtherName::new(
            inner_product_udf(),
            false,
            "array_inner_product",
            &["array_dot_product", "list_inner_product", "list_dot_product"],
        ),
        OtherName::new(
            inner_product_udf(),
            true,
            "array_negative_inner_product",
            &[
                "negative_inner_product",
                "vector_negative_inner_product",
                "array_negative_dot_product",
                "list_negative_inner_product",
                "list_negative_dot_product",
            ],
        ),
    ] {
        if let Some(function) = function.without(&|name| ctx.udf(name).is_ok()) {
            ctx.register_udf(ScalarUDF::new_from_impl(function));
        }
    }
}

/// Whether a function is one of these, which it is until the plan is simplified.
pub(crate) fn is_other_name(function: &ScalarUDF) -> bool {
    function.inner().is::<OtherName>()
}

/// One of DataFusion's distance functions under another name, with the sign turned if `negated`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OtherName {
    name: String,
    aliases: Vec<String>,
    function: Arc<ScalarUDF>,
    negated: bool,
    signature: Signature,
}

impl OtherName {
    fn new(function: Arc<ScalarUDF>, negated: bool, name: &str, aliases: &[&str]) -> Self {
        Self {
            name: name.to_string(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            function,
            negated,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    /// The function under those of its names that are not taken.
    fn without(mut self, taken: &dyn Fn(&str) -> bool) -> Option<Self> {
        let names = std::iter::once(self.name).chain(self.aliases);
        let mut free = names.filter(|name| !taken(name));
        self.name = free.next()?;
        self.aliases = free.collect();
        Some(self)
    }
}

impl ScalarUDFImpl for OtherName {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.function.return_type(arg_types)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let mut types = self.function.coerce_types(arg_types)?;
        // `array_distance` takes a `List` and a `LargeList`, and fails when it runs: both become `LargeList`.
        if types.iter().any(|list| matches!(list, DataType::LargeList(_))) {
            for list in &mut types {
                if let DataType::List(item) = list {
                    *list = DataType::LargeList(Arc::clone(item));
                }
            }
        }
        Ok(types)
    }

    fn simplify(&self, args: Vec<Expr>, _context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let call = self.function.call(args);
        Ok(ExprSimplifyResult::Simplified(if self.negated {
            Expr::Negative(Box::new(call))
        } else {
            call
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = self.function.invoke_with_args(args)?;
        if !self.negated {
            return Ok(value);
        }
        Ok(match value {
            ColumnarValue::Array(array) => ColumnarValue::Array(neg(&array)?),
            ColumnarValue::Scalar(scalar) => {
                let negative = neg(&scalar.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&negative, 0)?)
            }
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Array, AsArray};
    use datafusion::arrow::datatypes::Float64Type;

    /// The distances of a small table that holds all the awkward rows, as bits.
    async fn distances(ctx: &SessionContext, distance: &str) -> Vec<Option<u64>> {
        let table = "(VALUES (1, [1.5, -2.0]), (2, [0.1, 0.7]), (3, NULL), (4, [NULL, 1.0]), (5, [0.0, 0.0]),
            (6, [1e308, CAST('NaN' AS DOUBLE)]), (7, [1e308, -1e308])) AS t(id, v)";
        let sql = format!("SELECT {distance} AS d FROM {table} ORDER BY id");
        let batches = ctx.sql(&sql).await.expect(&sql).collect().await.expect(&sql);
        let column = |batch: &datafusion::arrow::array::RecordBatch| {
            let column = batch.column(0).as_primitive::<Float64Type>().clone();
            (0..column.len()).map(move |row| column.is_valid(row).then(|| column.value(row).to_bits()))
        };
        batches.iter().flat_map(column).collect()
    }

    const PAIRS: &[(&str, &str)] = &[
        ("l2_distance(v, [2, 1.5])", "array_distance(v, [2, 1.5])"),
        (
            "array_cosine_distance(v, [2, 1.5])",
            "cosine_distance(v, [2, 1.5])",
        ),
        (
            "list_cosine_distance([2, 1.5], v)",
            "cosine_distance([2, 1.5], v)",
        ),
        ("array_inner_product(v, [2, 1.5])", "inner_product(v, [2, 1.5])"),
        ("list_dot_product(v, [2, 1.5])", "inner_product(v, [2, 1.5])"),
        (
            "array_negative_inner_product(v, [2, 1.5])",
            "-inner_product(v, [2, 1.5])",
        ),
        ("negative_inner_product(v, [0, 0])", "-inner_product(v, [0, 0])"),
        ("list_negative_dot_product(v, v)", "-inner_product(v, v)"),
        (
            "negative_inner_product([1, 2], [3, 4])",
            "-inner_product([1, 2], [3, 4])",
        ),
        (
            "l2_distance(v, CAST(NULL AS DOUBLE[]))",
            "array_distance(v, CAST(NULL AS DOUBLE[]))",
        ),
        (
            "l2_distance(CAST(v AS FLOAT[]), v)",
            "array_distance(CAST(v AS FLOAT[]), v)",
        ),
    ];

    #[tokio::test]
    async fn every_name_gives_the_bits_of_the_function_it_names() {
        for simplified in [true, false] {
            let ctx = SessionContext::new();
            register(&ctx);
            if !simplified {
                assert!(ctx.remove_optimizer_rule("simplify_expressions"));
            }
            for (alias, function) in PAIRS {
                let expected = distances(&ctx, function).await;
                assert_eq!(
                    distances(&ctx, alias).await,
                    expected,
                    "{alias}, simplified: {simplified}"
                );
                assert_eq!(expected.len(), 7);
            }
        }
    }

    #[tokio::test]
    async fn the_plan_holds_datafusions_function_and_the_column_keeps_its_name() {
        let ctx = SessionContext::new();
        register(&ctx);
        ctx.sql("CREATE TABLE t (v DOUBLE[]) AS VALUES ([1.0, 2.0])")
            .await
            .expect("the table is created");
        for (alias, function) in [
            ("l2_distance", "array_distance(t.v"),
            ("negative_inner_product", "(- inner_product(t.v"),
        ] {
            let frame = ctx
                .sql(&format!("SELECT {alias}(v, [3.0, 4.0]) FROM t"))
                .await
                .expect("the query is planned");
            let name = frame.schema().field(0).name().clone();
            let plan = frame.into_optimized_plan().expect("the plan is optimised");
            assert!(plan.to_string().contains(function), "{plan}");
            assert_eq!(plan.schema().field(0).name(), &name);
        }
    }

    #[tokio::test]
    async fn wrong_arguments_are_refused_and_foreign_functions_are_kept() {
        let ctx = SessionContext::new();
        let mine = OtherName::new(inner_product_udf(), false, "l2_distance", &[]);
        ctx.register_udf(ScalarUDF::new_from_impl(mine));
        register(&ctx);
        assert_eq!(
            distances(&ctx, "l2_distance(v, v)").await,
            distances(&ctx, "inner_product(v, v)").await
        );
        for wrong in [
            "array_cosine_distance([1.0])",
            "array_cosine_distance(1, 2)",
            "negative_inner_product([1], [1, 2])",
        ] {
            let run = async { ctx.sql(&format!("SELECT {wrong}")).await?.collect().await };
            assert!(run.await.is_err(), "{wrong}");
        }
    }
}
