//! What a search learns only when it runs: the results of uncorrelated scalar subqueries.
//!
//! DataFusion computes them once, before the first row is asked for, and its nodes above the scan hold expressions
//! that read them. The scan reads the same ones, so that both mean the same vector and the same filter, even where
//! a second evaluation of the subquery would give another row.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::projection::{ProjectionExpr, update_expr};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, conjunction, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;

use super::scan::ScanSpec;
use crate::rows::filter::RowFilter;
use crate::sql::recognize::query_vector::as_doubles;
use crate::sql::recognize::sort_key::Distance;

/// Expressions over results of subqueries.
#[derive(Debug)]
pub(crate) struct Late {
    /// The query vector.
    query: Option<Arc<dyn PhysicalExpr>>,
    /// Filters over the columns that the scan gives.
    filters: Vec<Arc<dyn PhysicalExpr>>,
}

impl Late {
    /// What the nodes from `top`, a sort or a node that keeps its order, down to the scan hold for it. `None` if
    /// there is another node among them.
    pub(crate) fn between(top: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        let (mut next, mut key, mut filters) = (top, None, vec![]);
        loop {
            next = if let Some(sort) = next.downcast_ref::<SortExec>() {
                key = Some(Arc::clone(&sort.expr().first().expr));
                sort.input()
            } else if let Some(filter) = next.downcast_ref::<FilterExec>() {
                if filter.projection().is_some() {
                    return Ok(None);
                }
                let conjuncts = split_conjunction(filter.predicate()).into_iter();
                filters.extend(conjuncts.filter(|e| reads_subquery(e)).cloned());
                filter.input()
            } else if let Some(projection) = next.downcast_ref::<ProjectionExec>() {
                let below = |expr| below(&expr, projection.expr());
                key = key.map(below).transpose()?;
                filters = filters.into_iter().map(below).collect::<Result<_>>()?;
                projection.input()
            } else if let Some(limit) = next.downcast_ref::<GlobalLimitExec>() {
                limit.input()
            } else if next.children().is_empty() {
                let query = key.as_ref().map(query_in).transpose()?.flatten();
                return Ok(Some(Self { query, filters }));
            } else {
                return Ok(None);
            };
        }
    }

    /// The query vector; `None` if there is none in the subquery's result.
    pub(crate) fn query(&self) -> Result<Option<Arc<[f64]>>> {
        let Some(query) = &self.query else {
            return Ok(None);
        };
        Ok(value_of(query)?.and_then(|value| as_doubles(&value).map(Arc::from)))
    }

    /// The filters, over the columns that the scan gives.
    pub(crate) fn filters_over_scan(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.filters
    }

    /// How many filters there are.
    pub(crate) fn filters(&self) -> usize {
        self.filters.len()
    }

    /// The whole filter of a scan.
    pub(crate) fn filter(&self, spec: &ScanSpec) -> Result<RowFilter> {
        let table = spec.table.schema();
        let known = spec.filter.iter().map(|filter| Arc::clone(&filter.over_table));
        let late = self.filters.iter().map(|filter| over_table(filter, spec, table));
        let all: Vec<_> = known.map(Ok).chain(late).collect::<Result<_>>()?;
        RowFilter::new(conjunction(all), table)
    }
}

fn reads_subquery(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.exists(|e| Ok(e.is::<ScalarSubqueryExpr>())).unwrap_or(false)
}

/// The one value of an expression that names no columns.
fn value_of(expr: &Arc<dyn PhysicalExpr>) -> Result<Option<ScalarValue>> {
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    Ok(match expr.evaluate(&nothing)? {
        ColumnarValue::Scalar(value) => Some(value),
        ColumnarValue::Array(_) => None,
    })
}

/// An expression over a projection's output as one over its input.
fn below(expr: &Arc<dyn PhysicalExpr>, projection: &[ProjectionExpr]) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(update_expr(expr, projection, true)?.unwrap_or_else(|| Arc::clone(expr)))
}

/// The argument of the distance that comes from a subquery.
fn query_in(key: &Arc<dyn PhysicalExpr>) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let mut query = None;
    key.apply(|e| {
        let call = e.downcast_ref::<ScalarFunctionExpr>();
        let Some(call) = call.filter(|call| Distance::of(call.fun()).is_some()) else {
            return Ok(TreeNodeRecursion::Continue);
        };
        query = call.args().iter().find(|arg| reads_subquery(arg)).cloned();
        Ok(TreeNodeRecursion::Stop)
    })?;
    Ok(query)
}

/// A filter over the scan's columns as one over the table's, with the results in place of the subqueries.
fn over_table(
    filter: &Arc<dyn PhysicalExpr>,
    spec: &ScanSpec,
    table: &SchemaRef,
) -> Result<Arc<dyn PhysicalExpr>> {
    let replaced = Arc::clone(filter).transform_up(|e| {
        if let Some(column) = e.downcast_ref::<Column>() {
            let index = spec.projection[column.index()];
            let column = Column::new(table.field(index).name(), index);
            return Ok(Transformed::yes(Arc::new(column) as _));
        }
        if e.is::<ScalarSubqueryExpr>() {
            return Ok(match value_of(&e)? {
                Some(value) => Transformed::yes(Arc::new(Literal::new(value)) as _),
                None => Transformed::no(e),
            });
        }
        Ok(Transformed::no(e))
    });
    replaced.data()
}
