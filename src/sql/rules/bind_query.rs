//! A distance function whose query vector is part of the function.
//!
//! DataFusion hashes, compares, casts, prints and bounds a literal many times while it plans a query, and for an
//! embedding each time means hundreds of numbers: a good third of the planning time. [`BoundDistance`] is
//! DataFusion's own function with the literal inside: the same name for the column, the same type, the same values,
//! because it calls that function. It replaces `f(column, literal)` only in searches over Parquet files.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, FetchType, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TableScan, Volatility,
};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::optimizer::{AnalyzerRule, OptimizerContext, OptimizerRule};

use super::fold_array_literal::MIN_NUMBERS;
use super::guard::guarded;
use super::knn::is_searchable;
use crate::sql::options::{HnswOptions, Mode};
use crate::sql::recognize::order_by::searches;
use crate::sql::recognize::query_vector::{as_doubles, literal_below, shown};
use crate::sql::recognize::sort_key::Distance;
use crate::sql::recognize::trace::below;

/// Puts the literals of a search into its distance functions, once their types are settled.
#[derive(Debug)]
pub(crate) struct BindRule;

impl AnalyzerRule for BindRule {
    fn name(&self) -> &'static str {
        "hnsw_bind"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        if HnswOptions::of(config).mode == Mode::Off || !plan.exists(|node| Ok(searches(node, &is_ours)))? {
            return Ok(plan);
        }
        let bound = guarded(self.name(), plan, |plan| bind_all(plan)?.map_data(settle));
        Ok(bound.map_or_else(|plan| *plan, |bound| bound.data))
    }
}

fn bind_all(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    plan.transform_down_with_subqueries(|node| {
        // A sort's columns are its input's, however its keys are named.
        let names = (!matches!(node, LogicalPlan::Sort(_))).then(|| NamePreserver::new(&node));
        node.map_expressions(|expr| bind_within(expr, names.as_ref()))
    })
}

/// Binds the distances of an expression and keeps the expression's name.
///
/// A distance called by itself keeps it by [`BoundDistance::schema_name`]. What is around one may make its own name in
/// another way: windows and aggregates print the keys that they order by and the filter that they have.
fn bind_within(expr: Expr, names: Option<&NamePreserver>) -> Result<Transformed<Expr>> {
    let shows_itself = matches!(&expr, Expr::Alias(_)) || bindable(&expr).is_some();
    let name = match names {
        Some(names) if !shows_itself && expr.exists(|e| Ok(bindable(e).is_some()))? => {
            Some(names.save(&expr))
        }
        _ => None,
    };
    let bound = expr.transform_up(|e| Ok(bind(e)))?;
    Ok(match name {
        Some(name) => bound.update_data(|e| name.restore(e)),
        None => bound,
    })
}

/// Does to a plain chain of nodes what takes DataFusion's optimizer a pass for the limit to reach the sort, one to
/// remove its node, and one to see that nothing changes any more.
fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    /// What the rules ask of a session; these two ask nothing.
    static NOTHING: LazyLock<OptimizerContext> = LazyLock::new(OptimizerContext::new);
    if !is_plain_chain(&plan) {
        return Ok(plan);
    }
    let (limit, mut plan) = (PushDownLimit::new(), plan);
    for _step in ["to the sort", "and away"] {
        plan = plan.transform_down(|node| limit.rewrite(node, &*NOTHING))?.data;
    }
    Ok(OptimizeProjections::new().rewrite(plan, &*NOTHING)?.data)
}

fn is_plain_chain(plan: &LogicalPlan) -> bool {
    let has_subquery = |node: &LogicalPlan| {
        let mut found = false;
        let looked = node.apply_subqueries(|_| {
            found = true;
            Ok(TreeNodeRecursion::Stop)
        });
        found || looked.is_err()
    };
    let mut next = plan;
    loop {
        if has_subquery(next) {
            return false;
        }
        next = match next {
            // A limit of none empties the plan, by another rule.
            LogicalPlan::Limit(node) => match node.get_fetch_type() {
                Ok(FetchType::Literal(Some(1..))) => &node.input,
                _ => return false,
            },
            LogicalPlan::Sort(node) => &node.input,
            LogicalPlan::TableScan(_) => return true,
            node => match below(node) {
                Some(node) => node,
                None => return false,
            },
        };
    }
}

fn is_ours(scan: &TableScan) -> bool {
    is_searchable(&scan.source)
}

/// A call of a distance function with its two arguments.
fn bindable(expr: &Expr) -> Option<(&ScalarFunction, Distance)> {
    let Expr::ScalarFunction(call) = expr else {
        return None;
    };
    Distance::of(&call.func).map(|distance| (call, distance))
}

/// `f(x, literal)` or `f(literal, x)` as a function of `x`.
fn bind(expr: Expr) -> Transformed<Expr> {
    let Some((call, distance)) = bindable(&expr) else {
        return Transformed::no(expr);
    };
    let [left, right] = call.args.as_slice() else {
        return Transformed::no(expr);
    };
    let (at, constant, other) = match (literal_below(left), literal_below(right)) {
        (None, Some(constant)) => (1, constant, left),
        (Some(constant), None) => (0, constant, right),
        _ => return Transformed::no(expr),
    };
    match as_doubles(&constant) {
        Some(numbers) if numbers.len() >= MIN_NUMBERS => {
            let written = call.args[at].clone();
            let bound = BoundDistance::new(Arc::clone(&call.func), distance, at, constant, written, numbers);
            let func = Arc::new(ScalarUDF::new_from_impl(bound));
            Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
                func,
                vec![other.clone()],
            )))
        }
        _ => Transformed::no(expr),
    }
}

/// One of DataFusion's distance functions with one argument given.
#[derive(Debug)]
pub(crate) struct BoundDistance {
    function: Arc<ScalarUDF>,
    distance: Distance,
    /// The place of the given argument: 0 or 1.
    at: usize,
    constant: ScalarValue,
    /// The argument as it was written, for names.
    written: Expr,
    numbers: Arc<[f64]>,
    hash: u64,
    name: String,
    signature: Signature,
}

impl BoundDistance {
    fn new(
        function: Arc<ScalarUDF>,
        distance: Distance,
        at: usize,
        constant: ScalarValue,
        written: Expr,
        numbers: Vec<f64>,
    ) -> Self {
        let mut bytes = Vec::with_capacity(numbers.len() * 8);
        for number in &numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
        // Shown in plans only: columns are named by `schema_name`, and functions are told apart by what is in them.
        let name = format!("{}{}", function.name(), shown(&numbers));
        Self {
            function,
            distance,
            at,
            constant,
            written,
            numbers: numbers.into(),
            hash,
            name,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }

    /// The function that a call calls, if it is one of these.
    pub(crate) fn of(call: &ScalarFunction) -> Option<&Self> {
        call.func.inner().downcast_ref()
    }

    /// Which distance it is.
    pub(crate) fn distance(&self) -> Distance {
        self.distance
    }

    /// The given vector, as DataFusion's functions see it.
    pub(crate) fn numbers(&self) -> &Arc<[f64]> {
        &self.numbers
    }

    fn field(&self) -> FieldRef {
        Arc::new(Field::new("lit", self.constant.data_type(), false))
    }
}

impl PartialEq for BoundDistance {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.numbers, &other.numbers)
            || (self.hash == other.hash
                && self.at == other.at
                && self.function == other.function
                && self.constant == other.constant
                && self.written == other.written)
    }
}

impl Eq for BoundDistance {}

impl Hash for BoundDistance {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl ScalarUDFImpl for BoundDistance {
    fn name(&self) -> &str {
        &self.name
    }

    /// The name of the call as it was written.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let mut args = args.to_vec();
        args.insert(self.at, self.written.clone());
        self.function.schema_name(&args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        internal_err!("the type of a bound distance comes with its field")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let mut fields = args.arg_fields.to_vec();
        let mut scalars = args.scalar_arguments.to_vec();
        fields.insert(self.at, self.field());
        scalars.insert(self.at, Some(&self.constant));
        self.function.return_field_from_args(ReturnFieldArgs {
            arg_fields: &fields,
            scalar_arguments: &scalars,
        })
    }

    fn is_strict(&self) -> bool {
        self.function.inner().is_strict()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args
            .insert(self.at, ColumnarValue::Scalar(self.constant.clone()));
        args.arg_fields.insert(self.at, self.field());
        self.function.invoke_with_args(args)
    }
}
