//! The QUERY sentence: request, row ids, selection, batches.
//!
//! One node for all files of the table. Its rows are a superset of the answer, in no particular order; the sort and
//! the limit above it are DataFusion's own.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};

use super::cancel;
use super::explain;
use super::fetch::{check_rows, fetch};
use super::files::{SearchFile, Strategy};
use super::metrics::SearchMetrics;
use super::subquery_results::Late;
use super::through_index::{Candidates, OtherDimension, PreparedQuery, can_skip, candidates};
use super::top_k_bound::Bound;
use crate::rows::filter::{FilterCache, RowFilter};
use crate::rows::scan::{FileRead, FilterFailed, TableFiles};
use crate::rows::vectors::{item_type, stored_exactly};
use crate::sidecar::Sidecar;
use crate::sql::recognize::order_by::KnnRequest;
use crate::sql::recognize::query_vector::QueryVector;
use crate::sql::shared::Shared;

/// What a scan does, decided when it is planned.
#[derive(Debug)]
pub(crate) struct ScanSpec {
    /// What is asked.
    pub request: Arc<KnnRequest>,
    /// The table's own scan, taken apart.
    pub table: TableFiles,
    /// Its files, each with how it is answered.
    pub files: Vec<SearchFile>,
    /// What the rows must satisfy.
    pub filter: Option<RowFilter>,
    /// Which columns of the table come out.
    pub projection: Vec<usize>,
    /// The schema of what comes out.
    pub schema: SchemaRef,
    /// The vector column's type in the table.
    pub vector_type: datafusion::arrow::datatypes::DataType,
    /// The session's caches.
    pub shared: Arc<Shared>,
    /// `hnsw.ef_search`.
    pub ef_search: usize,
    /// Files searched at the same time.
    pub threads: usize,
}

impl ScanSpec {
    /// Candidates that a search keeps: the setting, or enough for a `k` beyond it to be found as well as a smaller one.
    pub(crate) fn ef(&self) -> usize {
        self.request
            .ef_search
            .unwrap_or(self.ef_search)
            .max(self.request.k.saturating_mul(2))
    }

    /// How many rows of NULL distance one file has to offer.
    pub(crate) fn nulls_wanted(&self) -> usize {
        if self.request.ties {
            usize::MAX
        } else {
            self.request.k
        }
    }

    /// Whether a column of the table holds vectors.
    pub(crate) fn is_vectors(&self, column: usize) -> bool {
        item_type(self.table.schema().field(column).data_type()).is_some()
    }

    /// Whether a filter computes with vectors, so that all of them are decoded to find the rows that satisfy it.
    pub(crate) fn reads_vectors(&self, filter: &RowFilter) -> bool {
        filter.columns.iter().any(|&column| self.is_vectors(column))
    }

    /// Whether a sidecar holds the very bits that the table's scan would give.
    pub(crate) fn holds_bits(&self, sidecar: &Sidecar) -> bool {
        sidecar.has_vectors()
            && item_type(&self.vector_type)
                .is_some_and(|item| stored_exactly(item) && sidecar.meta().item_type == item.to_string())
    }
}

/// A scan while it runs.
pub(crate) struct Run {
    pub(crate) spec: Arc<ScanSpec>,
    /// What the rows must satisfy, results of subqueries included.
    pub(crate) filter: Option<RowFilter>,
    pub(crate) context: Arc<TaskContext>,
    pub(crate) metrics: SearchMetrics,
    /// What is taken from DataFusion's pool; each piece of work holds a part of its own.
    pub(crate) memory: MemoryReservation,
    bytes_read: Arc<AtomicU64>,
    /// Bitmaps of a filter that may have other rows in the next query.
    bitmaps: OnceLock<FilterCache>,
}

impl Run {
    pub(crate) fn new(spec: Arc<ScanSpec>, context: Arc<TaskContext>, metrics: SearchMetrics) -> Self {
        let memory = MemoryConsumer::new("vector search").register(context.memory_pool());
        Self {
            filter: spec.filter.clone(),
            spec,
            context,
            metrics,
            memory,
            bytes_read: Arc::new(AtomicU64::new(0)),
            bitmaps: OnceLock::new(),
        }
    }

    /// Where the bitmaps of this filter are kept: with the session's if it has the same rows in every query, otherwise
    /// for as long as this run lasts.
    pub(crate) fn bitmaps(&self, filter: &RowFilter) -> &FilterCache {
        let shared = &self.spec.shared.filters;
        match filter.is_immutable() {
            true => shared,
            false => self.bitmaps.get_or_init(|| FilterCache::new(shared.capacity())),
        }
    }

    /// How to read `file`; columns, selection and pruning are still to be said.
    pub(crate) fn read<'a>(&'a self, file: &'a SearchFile) -> FileRead<'a> {
        FileRead {
            file: &file.file,
            source: &file.source,
            footer: &file.footer,
            columns: &[],
            selection: None,
            prune_by: None,
            bytes_read: &self.bytes_read,
        }
    }

    /// How many files have an index that was found to be damaged since the search was planned. Never fewer than before.
    pub(crate) fn damaged_files(&self) -> usize {
        let planned = self.spec.files.iter();
        planned
            .filter(|file| matches!(file.strategy, Strategy::Index(_)) && file.index().is_none())
            .count()
    }

    /// The bytes of Parquet read since the last call.
    pub(crate) fn take_bytes_read(&self) -> usize {
        usize::try_from(self.bytes_read.swap(0, Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

/// Scans a table for the rows nearest to a vector.
#[derive(Debug)]
pub(crate) struct VectorScanExec {
    spec: Arc<ScanSpec>,
    /// The table's own scan, for a query that turns out not to be ours when its vector is known.
    whole: Arc<dyn ExecutionPlan>,
    /// What the nodes above read from subqueries.
    late: Option<Arc<Late>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl VectorScanExec {
    pub(crate) fn new(spec: ScanSpec, whole: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&spec.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            spec: Arc::new(spec),
            whole,
            late: None,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Whether results of subqueries are still missing.
    pub(crate) fn waits_for_subqueries(&self) -> bool {
        self.late.is_none() && self.spec.request.reads_subqueries()
    }

    /// The same scan with the results of subqueries.
    pub(crate) fn with_late(&self, late: Late) -> Self {
        Self {
            spec: Arc::clone(&self.spec),
            whole: Arc::clone(&self.whole),
            late: Some(Arc::new(late)),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// How many rows the table has, if DataFusion knows it and each of them can be in the answer.
    pub(crate) fn rows_of_table(&self) -> Option<usize> {
        if self.spec.filter.is_some() || self.spec.request.late_filters > 0 {
            return None;
        }
        let statistics = StatisticsContext::new().compute(self.whole.as_ref(), &StatisticsArgs::new());
        match statistics.ok()?.num_rows {
            Precision::Exact(rows) => Some(rows),
            Precision::Inexact(_) | Precision::Absent => None,
        }
    }

    /// What it does.
    pub(crate) fn spec(&self) -> &Arc<ScanSpec> {
        &self.spec
    }
}

impl DisplayAs for VectorScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        explain::scan(&self.spec, self.late.as_deref(), format, f)
    }
}

impl ExecutionPlan for VectorScanExec {
    fn name(&self) -> &str {
        "VectorScanExec"
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
        let batches = answer(run, self.late.clone(), Arc::clone(&self.whole));
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
        statistics.num_rows = Precision::Inexact(self.spec.request.k);
        Ok(Arc::new(statistics))
    }
}

/// The query, from its vector to batches.
async fn answer(
    mut run: Run,
    late: Option<Arc<Late>>,
    whole: Arc<dyn ExecutionPlan>,
) -> Result<SendableRecordBatchStream> {
    for file in &run.spec.files {
        run.metrics.load_time.add_duration(file.load);
    }
    let request = &run.spec.request;
    let vector = match (&request.query, &late) {
        (QueryVector::Literal(numbers), _) => Some(Arc::clone(numbers)),
        // What cannot be computed without rows is computed with them, by the nodes above.
        (QueryVector::Subquery, Some(late)) => late.query().unwrap_or(None),
        (QueryVector::Subquery, None) => None,
    };
    let Some(query) = vector.and_then(|vector| PreparedQuery::new(vector, request.distance)) else {
        return pass_through(&run, whole);
    };
    if request.late_filters > 0 {
        let filter = late.as_ref().map(|late| late.filter(&run.spec));
        let Some(Ok(filter)) = filter else {
            return pass_through(&run, whole);
        };
        run.filter = Some(filter);
    }
    let run = Arc::new(run);
    let (rows, kept) = loop {
        let damaged = run.damaged_files();
        let mut found = match search(&run, &query).await {
            Ok(Ok(found)) => found,
            Ok(Err(OtherDimension)) => return pass_through(&run, whole),
            Err(error) if FilterFailed::is(&error) => return pass_through(&run, whole),
            Err(error) => return Err(error),
        };
        run.metrics.bytes_read.add(run.take_bytes_read());
        let kept = found.iter_mut().map(|of_file| of_file.vectors.take()).collect();
        let rows = cancel::choose(found, &run.spec.request).await?;
        check_rows(&run, &rows).await;
        if run.damaged_files() == damaged {
            break (rows, kept);
        }
        // What a damaged index offered may have kept out rows of any file: all is searched again without it.
    };
    Ok(fetch(run, rows, kept))
}

/// Searches all files, several at a time: those that may hold the nearest rows first, so that others can be skipped.
async fn search(run: &Arc<Run>, query: &PreparedQuery) -> Result<Result<Vec<Candidates>, OtherDimension>> {
    let files = &run.spec.files;
    if let [file] = files.as_slice() {
        let found = candidates(run, file, query, None).await?;
        return Ok(found.map(|found| vec![found]));
    }
    let at_least = |file: &SearchFile| file.at_least(&run.spec.request, &query.exact);
    let mut order: Vec<(f64, usize)> = files.iter().map(at_least).zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bound = Arc::new(Bound::new(run.spec.request.k));
    let mut searches = futures::stream::iter(order)
        .map(|(at_least, index)| {
            // Looked at when its turn comes: by then the nearest files have been searched.
            let skip = can_skip(&files[index], Some((&bound, at_least)));
            let (run, query, bound) = (Arc::clone(run), query.clone(), Arc::clone(&bound));
            async move {
                if skip {
                    run.metrics.files_skipped.add(1);
                    return Ok((index, Ok(Ok(Candidates::default()))));
                }
                let search = SpawnedTask::spawn(async move {
                    candidates(&run, &run.spec.files[index], &query, Some((&bound, at_least))).await
                });
                search.await.map(|found| (index, found))
            }
        })
        .buffer_unordered(run.spec.threads.max(1));
    let mut found: Vec<Candidates> = files.iter().map(|_| Candidates::default()).collect();
    while let Some(searched) = searches.next().await {
        let (index, of_file) = searched.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
        match of_file? {
            Ok(of_file) => found[index] = of_file,
            Err(other) => return Ok(Err(other)),
        }
    }
    Ok(Ok(found))
}

/// All rows, as if there were no index: for a query vector or a filter that only DataFusion's own functions can judge.
pub(crate) fn pass_through(run: &Run, whole: Arc<dyn ExecutionPlan>) -> Result<SendableRecordBatchStream> {
    run.metrics.passed_through.add(1);
    let context = Arc::clone(&run.context);
    let whole = with_filter(run, Arc::clone(&whole)).unwrap_or(whole);
    match whole.output_partitioning().partition_count() {
        1 => whole.execute(0, context),
        _ => CoalescePartitionsExec::new(whole).execute(0, context),
    }
}

/// The rows that pass the filter, as DataFusion's own plan without us would find them: a filter that it pushes down to
/// its reader is applied there, condition by condition, and not above us, all at once. Those of columns that the
/// scan does not give stay with the table's own pruning.
fn with_filter(run: &Run, whole: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = whole.schema();
    let conditions = run.spec.filter.iter();
    let conditions = conditions.flat_map(|filter| split_conjunction(&filter.over_table));
    let given = conditions.filter(|condition| {
        let mut columns = collect_columns(condition).into_iter();
        columns.all(|column| run.spec.projection.contains(&column.index()))
    });
    let given: Vec<_> = given.cloned().collect();
    if given.is_empty() {
        return Ok(whole);
    }
    let predicate = reassign_expr_columns(conjunction(given), &schema)?;
    let batch_size = run.context.session_config().batch_size();
    let filtered = FilterExecBuilder::new(predicate, whole).with_batch_size(batch_size);
    let filtered = Arc::new(filtered.build()?);
    FilterPushdown::new().optimize(filtered, run.context.session_config().options())
}
