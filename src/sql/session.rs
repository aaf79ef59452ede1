//! Changes to a session that its context has no method for: its state is built anew around them.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::repartition::RepartitionExec;
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
        let spread = plan.exists(|node| Ok(is_spread_scan(node)))?;
        if !spread {
            return Ok(plan);
        }
        plan.transform_up(|node| match is_spread_scan(&node) {
            true => Ok(Transformed::yes(Arc::clone(node.children()[0]))),
            false => Ok(Transformed::no(node)),
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
