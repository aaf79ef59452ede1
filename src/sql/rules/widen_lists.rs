//! Lists of both lengths in one distance.
//!
//! Arrow has two types of lists: `List`, whose offsets have 32 bits, and `LargeList`, whose offsets have 64. An array
//! literal is a `List`, and some programs write every list column as a `LargeList`. DataFusion's `cosine_distance` and
//! `inner_product` compare one with the other; its `array_distance` plans such a call and then fails when it runs.
//! [`WidenListsRule`] casts the shorter one, as the other two functions do themselves.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::functions_nested::distance::ArrayDistance;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use datafusion::optimizer::AnalyzerRule;

/// Casts a `List` that `array_distance` compares with a `LargeList` to a `LargeList`.
///
/// It runs in every `hnsw.mode`, after the types are settled. Types and names of columns stay as they are.
#[derive(Debug)]
pub(crate) struct WidenListsRule;

impl AnalyzerRule for WidenListsRule {
    fn name(&self) -> &'static str {
        "hnsw_widen_lists"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let widened = plan.transform_up_with_subqueries(|node| {
            if !calls_array_distance(&node)? {
                return Ok(Transformed::no(node));
            }
            let schema = match &node {
                LogicalPlan::TableScan(scan) => {
                    DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
                }
                node => merge_schema(&node.inputs()),
            };
            node.map_expressions(|expr| expr.transform_up(|e| widen(e, &schema)))
        })?;
        Ok(widened.data)
    }
}

/// Whether a node has such a call in its own expressions.
fn calls_array_distance(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found |= expr.exists(|e| Ok(array_distance(e).is_some()))?;
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// The call of `array_distance` that an expression is.
fn array_distance(expr: &Expr) -> Option<&ScalarFunction> {
    match expr {
        Expr::ScalarFunction(call) if call.func.inner().is::<ArrayDistance>() => Some(call),
        _ => None,
    }
}

fn widen(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Some(call) = array_distance(&expr) else {
        return Ok(Transformed::no(expr));
    };
    let types = call.args.iter().map(|arg| arg.get_type(schema));
    // A type that cannot be told here leaves the call to DataFusion.
    let Ok(types) = types.collect::<Result<Vec<_>>>() else {
        return Ok(Transformed::no(expr));
    };
    if !types.iter().any(|list| matches!(list, DataType::LargeList(_))) {
        return Ok(Transformed::no(expr));
    }
    let widened = call.args.iter().zip(types).map(|(arg, list)| match list {
        DataType::List(item) => cast(arg.clone(), DataType::LargeList(item)),
        _ => arg.clone(),
    });
    let call = ScalarFunction::new_udf(Arc::clone(&call.func), widened.collect());
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}
