//! Expressions traced down a chain of projections, aliases and filters, to the columns of the node below it.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};

/// The node below one that only passes on, renames, computes from, or leaves out rows.
pub(crate) fn below(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::Projection(node) => Some(&node.input),
        LogicalPlan::SubqueryAlias(node) => Some(&node.input),
        LogicalPlan::Filter(node) => Some(&node.input),
        _ => None,
    }
}

/// A chain of nodes above some other, with each output column of its top as an expression over that one's columns.
pub(crate) struct Chain<'a> {
    /// The node at the lower end.
    pub end: &'a LogicalPlan,
    top: &'a LogicalPlan,
    columns: Vec<Expr>,
    /// The filters on the way.
    pub conjuncts: Vec<Expr>,
    /// Those of them that a node above the end applies, whatever the end does.
    pub applied_above: Vec<Expr>,
}

impl<'a> Chain<'a> {
    /// Follows projections, aliases and filters down to the first other node.
    pub(crate) fn below(plan: &'a LogicalPlan) -> Result<Self> {
        match plan {
            LogicalPlan::Projection(node) => {
                let below = Chain::below(&node.input)?;
                let columns = node.expr.iter().map(|e| below.down(e));
                Ok(Chain {
                    top: plan,
                    columns: columns.collect::<Result<_>>()?,
                    ..below
                })
            }
            LogicalPlan::SubqueryAlias(node) => Ok(Chain {
                top: plan,
                ..Chain::below(&node.input)?
            }),
            LogicalPlan::Filter(node) => {
                let mut below = Chain::below(&node.input)?;
                for conjunct in split_conjunction_owned(below.down(&node.predicate)?) {
                    below.applied_above.push(conjunct.clone());
                    if !below.conjuncts.contains(&conjunct) {
                        below.conjuncts.push(conjunct);
                    }
                }
                Ok(Chain { top: plan, ..below })
            }
            LogicalPlan::TableScan(scan) => {
                let fields = scan.projected_schema.fields().iter();
                let columns = fields.map(|field| Expr::Column(Column::new_unqualified(field.name())));
                Ok(Chain {
                    end: plan,
                    top: plan,
                    columns: columns.collect(),
                    conjuncts: scan.filters.iter().map(unqualified).collect::<Result<_>>()?,
                    applied_above: vec![],
                })
            }
            end => Ok(Chain {
                end,
                top: end,
                columns: end.schema().columns().into_iter().map(Expr::Column).collect(),
                conjuncts: vec![],
                applied_above: vec![],
            }),
        }
    }

    /// The scan at the lower end, if it gives all rows of a table: then columns are the table's, unqualified.
    pub(crate) fn scan(&self) -> Option<&'a TableScan> {
        match self.end {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => Some(scan),
            _ => None,
        }
    }

    /// The top's columns.
    pub(crate) fn columns(&self) -> &[Expr] {
        &self.columns
    }

    /// Rewrites an expression over the top's columns into one over those of the end.
    pub(crate) fn down(&self, expr: &Expr) -> Result<Expr> {
        substitute(expr, self.top, &self.columns)
    }
}

fn substitute(expr: &Expr, input: &LogicalPlan, columns: &[Expr]) -> Result<Expr> {
    let schema = input.schema();
    let replaced = expr.clone().transform_up(|e| match &e {
        Expr::Column(column) => {
            let index = schema.index_of_column(column)?;
            Ok(Transformed::yes(columns[index].clone().unalias_nested().data))
        }
        _ => Ok(Transformed::no(e)),
    })?;
    Ok(replaced.data)
}

/// A scan's own filters name its columns with the table's name.
pub(crate) fn unqualified(expr: &Expr) -> Result<Expr> {
    let replaced = expr.clone().transform_up(|e| match e {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(
            column.name,
        )))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}
