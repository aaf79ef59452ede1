//! Searches that DataFusion's physical rules see as one node.
//!
//! Sort, projection and filter over a vector scan are in their final form when they are planned: a handful of rows in
//! one partition, which the sort brings into order. The rules of DataFusion look at each of these nodes some twenty
//! times, spread the rows over all cores and merge them again, which takes a fifth of the planning time and slows the
//! query. [`SealRule`] hides the nodes in a [`SealedExec`] before the first rule, [`UnsealRule`] takes them out
//! before the last, which checks the plan as it will run.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use super::guard::guarded_physical;
use crate::sql::search::scan::VectorScanExec;
use crate::sql::search::subquery_results::Late;

/// Hides each search in a node of its own.
#[derive(Debug)]
pub(crate) struct SealRule;

/// Takes the searches out again.
#[derive(Debug)]
pub(crate) struct UnsealRule;

impl PhysicalOptimizerRule for SealRule {
    fn name(&self) -> &'static str {
        "hnsw_seal"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(guarded_physical(self.name(), plan, seal))
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl PhysicalOptimizerRule for UnsealRule {
    fn name(&self) -> &'static str {
        "hnsw_unseal"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(guarded_physical(self.name(), plan, unseal))
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn seal(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_down(|node| match rows_of_search(&node) {
        Some((rows, scan)) => {
            let search = match scan.waits_for_subqueries() {
                true => with_subqueries(Arc::clone(&node))?,
                false => node,
            };
            let sealed = Arc::new(SealedExec { search, rows });
            Ok(Transformed::new(sealed, true, TreeNodeRecursion::Jump))
        }
        None => Ok(Transformed::no(node)),
    })
    .data()
}

fn unseal(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_down(|node| {
        // A search yields by itself: it waits for files, and for other threads.
        let below = node.downcast_ref::<CooperativeExec>().map(CooperativeExec::input);
        match below.unwrap_or(&node).downcast_ref::<SealedExec>() {
            Some(sealed) => {
                let search = Arc::clone(&sealed.search);
                Ok(Transformed::new(search, true, TreeNodeRecursion::Jump))
            }
            None => Ok(Transformed::no(node)),
        }
    })
    .data()
}

/// Gives the scan below these nodes what they read from subqueries.
fn with_subqueries(search: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut late = Late::between(&search)?;
    search
        .transform_down(
            |node| match (node.downcast_ref::<VectorScanExec>(), late.take()) {
                (Some(scan), Some(late)) if late.filters() >= scan.spec().request.late_filters => {
                    Ok(Transformed::yes(Arc::new(scan.with_late(late)) as _))
                }
                (_, rest) => {
                    late = rest;
                    Ok(Transformed::no(node))
                }
            },
        )
        .data()
}

/// How many rows come of a plan, and of which scan, if it is a sort of the few rows of a vector scan and nodes that
/// keep their order.
///
/// The count is exact where DataFusion's own plan would have it: then it spares a `count(*)` the search, and spreads
/// no handful of rows over all cores.
fn rows_of_search(plan: &Arc<dyn ExecutionPlan>) -> Option<(Precision<usize>, &VectorScanExec)> {
    let (mut next, mut limits) = (plan, vec![]);
    let most = loop {
        if let Some(sort) = next.downcast_ref::<SortExec>() {
            next = sort.input();
            break sort.fetch()?;
        }
        next = match next.downcast_ref::<GlobalLimitExec>() {
            Some(limit) => {
                limits.push((limit.skip(), limit.fetch().unwrap_or(usize::MAX)));
                limit.input()
            }
            None => next.downcast_ref::<ProjectionExec>()?.input(),
        };
    };
    let cut = |rows: usize| {
        let below_first = limits.iter().rev();
        below_first.fold(rows, |rows, &(skip, fetch)| rows.saturating_sub(skip).min(fetch))
    };
    let mut filtered = false;
    loop {
        if let Some(scan) = next.downcast_ref::<VectorScanExec>() {
            let all = if filtered { None } else { scan.rows_of_table() };
            let rows = match all {
                Some(all) => Precision::Exact(cut(all.min(most))),
                None => Precision::Inexact(cut(most)),
            };
            return Some((rows, scan));
        }
        next = match next.downcast_ref::<FilterExec>() {
            Some(filter) => {
                filtered = true;
                filter.input()
            }
            None => next.downcast_ref::<ProjectionExec>()?.input(),
        };
    }
}

/// A search that is planned already.
#[derive(Debug)]
struct SealedExec {
    search: Arc<dyn ExecutionPlan>,
    rows: Precision<usize>,
}

impl DisplayAs for SealedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: rows={}", self.name(), self.rows)
    }
}

impl ExecutionPlan for SealedExec {
    fn name(&self) -> &'static str {
        "SealedVectorSearchExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.search.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.search.execute(partition, context)
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = self.rows;
        Ok(Arc::new(statistics))
    }
}
