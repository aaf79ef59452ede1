//! Changes to a session that its context has no method for: its state is built anew around them.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionContext;

use super::scan::VectorScanExec;

/// Builds the session's state anew; its id, settings and everything registered stay.
///
/// Statements prepared before are forgotten.
pub(crate) fn rebuild(ctx: &SessionContext, change: impl FnOnce(SessionStateBuilder) -> SessionStateBuilder) {
    let state_ref = ctx.state_ref();
    let mut state = state_ref.write();
    let creates_catalog = state.config_options().catalog.create_default_catalog_and_schema;
    let builder = SessionStateBuilder::new_from_existing(state.clone());
    let mut rebuilt = change(builder.with_session_id(state.session_id().to_string())).build();
    // The builder turns this setting off, so that it does not create the catalog again.
    let catalog = &mut rebuilt.config_mut().options_mut().catalog;
    catalog.create_default_catalog_and_schema = creates_catalog;
    *state = rebuilt;
}

/// Puts [`OnePartition`] before DataFusion's last check of the plan, so that it is checked as it will run.
pub(crate) fn keep_in_one_partition(ctx: &SessionContext) {
    let mut rules = ctx.state().physical_optimizers().to_vec();
    let last = rules
        .iter()
        .position(|rule| rule.name() == "SanityCheckPlan")
        .unwrap_or(rules.len());
    rules.insert(last, Arc::new(OnePartition));
    rebuild(ctx, |state| state.with_physical_optimizer_rules(rules));
}

/// Keeps the few rows of a vector scan in one partition.
///
/// DataFusion spreads every single-partition scan over all cores unless it knows the exact number of rows, and a scan
/// that returns a superset must not claim to know it. For ten rows the tasks cost more than they save.
#[derive(Debug)]
pub(crate) struct OnePartition;

impl PhysicalOptimizerRule for OnePartition {
    fn name(&self) -> &'static str {
        "hnsw_one_partition"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !plan.exists(|node| Ok(is_spread_scan(node)))? {
            return Ok(plan);
        }
        plan.transform_up(|node| {
            if is_spread_scan(&node) || merges_nothing(&node) {
                return Ok(Transformed::yes(Arc::clone(node.children()[0])));
            }
            Ok(Transformed::no(node))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn is_spread_scan(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.downcast_ref::<RepartitionExec>().is_some_and(|repartition| {
        matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_))
            && repartition.input().is::<VectorScanExec>()
    })
}

/// A merge of the one partition that is left, behind a sort that keeps as few rows itself.
fn merges_nothing(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.downcast_ref::<SortPreservingMergeExec>()
        .is_some_and(|merge| {
            let input = merge.input();
            input.output_partitioning().partition_count() == 1
                && (merge.fetch().is_none() || merge.fetch() == input.fetch())
        })
}
