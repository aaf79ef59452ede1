//! Looking up the vectors of a few rows: the filter's columns say which rows, and only their vectors are read.
//!
//! It serves the subquery that gives a search its query vector. The rows are a superset of those that the filter above
//! keeps. If a filter keeps many, or cannot be evaluated, the table's own scan answers instead.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt};

use super::explain;
use super::fetch::{FETCHES_AT_ONCE, fetch};
use super::metrics::SearchMetrics;
use super::scan::{Run, ScanSpec, pass_through};
use crate::rows::filter::RowFilter;
use crate::rows::pause::Pause;
use crate::rows::scan::{matching, row_numbers};

/// More rows than this are left to the table's own scan. Each of them may be in a page of its own, so reading many of
/// them takes as long as reading all.
const MOST_ROWS: usize = 1024;

/// Rows of a column in memory that are compared at a time.
const ROWS_AT_ONCE: usize = 8192;

/// Gives the rows of a table that satisfy a filter, if they are few, and otherwise all rows.
#[derive(Debug)]
pub(crate) struct VectorLookupExec {
    spec: Arc<ScanSpec>,
    filter: RowFilter,
    /// The table's own scan.
    whole: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl VectorLookupExec {
    pub(crate) fn new(spec: ScanSpec, filter: RowFilter, whole: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&spec.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            spec: Arc::new(spec),
            filter,
            whole,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for VectorLookupExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        explain::lookup(&self.spec, &self.filter, format, f)
    }
}

impl ExecutionPlan for VectorLookupExec {
    fn name(&self) -> &'static str {
        "VectorLookupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let run = Run::new(Arc::clone(&self.spec), context, SearchMetrics::new(&self.metrics));
        let batches = answer(Arc::new(run), self.filter.clone(), Arc::clone(&self.whole));
        let batches = futures::stream::once(batches).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.spec.schema),
            batches,
        )))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.spec.schema);
        statistics.num_rows = Precision::Inexact(1);
        Ok(Arc::new(statistics))
    }
}

async fn answer(
    run: Arc<Run>,
    filter: RowFilter,
    whole: Arc<dyn ExecutionPlan>,
) -> Result<SendableRecordBatchStream> {
    let found = rows(&run, &filter).await;
    run.metrics.bytes_read.add(run.take_bytes_read());
    match found {
        Ok(Some(rows)) => Ok(fetch(run, rows, vec![])),
        Ok(None) => pass_through(&run, whole),
        Err(error) => {
            tracing::debug!(%error, "the rows of a filter cannot be found in advance");
            pass_through(&run, whole)
        }
    }
}

/// The rows of each file that satisfy the filter; `None` if they are more than a few.
async fn rows(run: &Arc<Run>, filter: &RowFilter) -> Result<Option<Vec<Vec<u64>>>> {
    let _timer = run.metrics.filter_time.timer();
    let mut files = futures::stream::iter(0..run.spec.files.len())
        .map(|file| rows_of(run, filter, file))
        .buffered(FETCHES_AT_ONCE);
    let (mut rows, mut count) = (vec![], 0);
    while let Some(of_file) = files.try_next().await? {
        count += of_file.len();
        if count > MOST_ROWS {
            return Ok(None);
        }
        rows.push(of_file);
    }
    Ok(Some(rows))
}

/// The rows of one file that satisfy the filter; of many only the first.
async fn rows_of(run: &Arc<Run>, filter: &RowFilter, file: usize) -> Result<Vec<u64>> {
    let spec = &run.spec;
    let mut read = run.read(&spec.files[file]);
    read.columns = &filter.columns;
    let whole = spec.shared.columns.whole(&spec.table, read, &run.context).await?;
    let (mut rows, mut pause) = (vec![], Pause::new());
    if let Some(columns) = whole {
        let fields = filter
            .columns
            .iter()
            .map(|&c| Arc::clone(&spec.table.fields()[c]));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let all = RecordBatch::try_new(schema, columns)?;
        for first in (0..all.num_rows()).step_by(ROWS_AT_ONCE) {
            pause.if_due().await;
            let batch = all.slice(first, ROWS_AT_ONCE.min(all.num_rows() - first));
            let mask = matching(&batch, filter.over_columns())?;
            rows.extend(selected(&mask).map(|at| (first + at) as u64));
            if rows.len() > MOST_ROWS {
                break;
            }
        }
        return Ok(rows);
    }
    let mut read = run.read(&spec.files[file]);
    read.columns = &filter.columns;
    read.prune_by = Some(Arc::clone(&filter.over_table));
    let mut batches = spec.table.read(read, &run.context)?;
    while let Some(batch) = batches.try_next().await? {
        pause.if_due().await;
        let mask = matching(&batch, filter.over_columns())?;
        let numbers = row_numbers(&batch)?;
        rows.extend(selected(&mask).map(|at| numbers.value(at).cast_unsigned()));
        if rows.len() > MOST_ROWS {
            break;
        }
    }
    Ok(rows)
}

fn selected(mask: &BooleanArray) -> impl Iterator<Item = usize> + '_ {
    mask.values().set_indices()
}
