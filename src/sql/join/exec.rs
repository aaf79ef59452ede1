//! The join of two tables by nearness, as a node of a plan.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::TryStreamExt;

use super::plan::JoinColumn;
use super::run::Join;
use crate::rows::scan::FilterFailed;
use crate::sql::search::explain;
use crate::sql::search::metrics::SearchMetrics;
use crate::sql::search::scan::{Run, ScanSpec};

/// Left rows that are answered together: their searches run side by side, their rows are fetched at once.
const ROWS_AT_ONCE: usize = 256;

/// Gives for each row of its input the nearest rows of a table.
#[derive(Debug)]
pub(crate) struct VectorJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<ScanSpec>,
    output: Arc<[JoinColumn]>,
    superset: bool,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl VectorJoinExec {
    /// Joins; the first column of `left`, and the first that `right` projects, are the vectors. A `superset` has all
    /// pairs that may be among the nearest, also those without a distance.
    pub(crate) fn new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<ScanSpec>,
        output: Arc<[JoinColumn]>,
        schema: SchemaRef,
        superset: bool,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(left.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            left,
            right,
            output,
            superset,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for VectorJoinExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        explain::join(&self.right, format, f)
    }
}

impl ExecutionPlan for VectorJoinExec {
    fn name(&self) -> &str {
        "VectorJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [left] =
            <[_; 1]>::try_from(children).map_err(|_| internal_datafusion_err!("a join of one input"))?;
        Ok(Arc::new(Self::new(
            left,
            Arc::clone(&self.right),
            Arc::clone(&self.output),
            self.schema(),
            self.superset,
        )))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let join = Arc::new(Join {
            run: Arc::new(Run::new(
                Arc::clone(&self.right),
                Arc::clone(&context),
                SearchMetrics::new(&self.metrics),
            )),
            output: Arc::clone(&self.output),
            superset: self.superset,
            schema: self.schema(),
        });
        for file in &self.right.files {
            join.run.metrics.load_time.add_duration(file.load);
        }
        let rows = self.left.execute(partition, context)?;
        let pieces = rows.map_ok(|batch| {
            let starts = (0..batch.num_rows()).step_by(ROWS_AT_ONCE);
            let pieces = starts.map(|at| Ok(batch.slice(at, ROWS_AT_ONCE.min(batch.num_rows() - at))));
            futures::stream::iter(pieces.collect::<Vec<_>>())
        });
        let joined = pieces.try_flatten().and_then(move |piece| {
            let join = Arc::clone(&join);
            async move { join.piece(&piece).await.map_err(FilterFailed::unwrapped) }
        });
        let joined = joined.try_filter(|batch| futures::future::ready(batch.num_rows() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), joined)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
