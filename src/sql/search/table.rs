//! The table provider: the original table, and perhaps what is asked of it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::{Constraints, DFSchema, Result, Statistics};
use datafusion::datasource::TableProvider;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use tracing::warn;

use super::files::{Sidecars, apply_settings, plan_files};
use super::lookup::VectorLookupExec;
use super::refused::RefusedExec;
use super::scan::{ScanSpec, VectorScanExec};
use crate::rows::filter::RowFilter;
use crate::rows::scan::TableFiles;
use crate::sql::options::HnswOptions;
use crate::sql::recognize::order_by::KnnRequest;
use crate::sql::recognize::refusal::Refusal;
use crate::sql::shared::Shared;

/// A table of Parquet files that can be searched through its indexes.
///
/// It behaves like the provider it wraps, and the optimizer rule recognises it like any listing of Parquet files.
#[derive(Debug)]
pub struct VectorTable {
    inner: Arc<dyn TableProvider>,
    asked: Option<Asked>,
    shared: Arc<Shared>,
}

/// What the plan above a scan asks of it.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Only the rows nearest to a vector.
    Knn(Arc<KnnRequest>),
    /// The vectors of the rows that satisfy the request's filters.
    Lookup(Arc<KnnRequest>),
    /// All rows, because the search cannot be ours; EXPLAIN says why.
    Refused(Refusal),
}

impl VectorTable {
    pub(crate) fn new(inner: Arc<dyn TableProvider>, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            asked: None,
            shared,
        }
    }

    pub(crate) fn asking(inner: Arc<dyn TableProvider>, asked: Asked, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            asked: Some(asked),
            shared,
        }
    }

    /// The wrapped provider, unless it is searched already. A reason against a search does not rule one out: a later
    /// pass of the optimizer may see a plan that can be searched.
    pub(crate) fn unsearched(&self) -> Option<&Arc<dyn TableProvider>> {
        (!matches!(self.asked, Some(Asked::Knn(_)))).then_some(&self.inner)
    }

    /// Why it is not searched, if that is known.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match &self.asked {
            Some(Asked::Refused(refusal)) => Some(*refusal),
            _ => None,
        }
    }

    /// The wrapped provider.
    pub fn inner(&self) -> &Arc<dyn TableProvider> {
        &self.inner
    }

    /// The scan that a request asks for.
    pub(crate) async fn scan_request(
        &self,
        state: &dyn Session,
        request: &Arc<KnnRequest>,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.scan(state, projection, filters, None).await?;
        let searched = self.spec(state, request, projection, &inner).await;
        let searched = searched.unwrap_or_else(|error| {
            warn!(%error, "planning a search failed; DataFusion's own scan answers");
            Err(Some(Refusal::StepFailed))
        });
        Ok(match searched {
            Ok(spec) => Arc::new(VectorScanExec::new(spec, inner)),
            Err(None) => inner,
            Err(Some(refusal)) => Arc::new(RefusedExec::new(inner, refusal)),
        })
    }

    /// The scan that looks up vectors; the table's own where that cannot be done.
    async fn scan_lookup(
        &self,
        state: &dyn Session,
        request: &Arc<KnnRequest>,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.scan(state, projection, filters, None).await?;
        let Ok(Ok(spec)) = self.spec(state, request, projection, &inner).await else {
            return Ok(inner);
        };
        let Some(filter) = spec.filter.clone() else {
            return Ok(inner);
        };
        let whole = spec.table.pruned_by(&filter.over_table);
        let threads = state.config().target_partitions();
        let whole = whole
            .repartitioned(threads, state.config_options())?
            .unwrap_or(whole);
        Ok(Arc::new(VectorLookupExec::new(spec, filter, whole)))
    }

    /// How a request is answered from the files of the table's own scan; `Err` if that scan is to be used, and why.
    async fn spec(
        &self,
        state: &dyn Session,
        request: &Arc<KnnRequest>,
        projection: Option<&Vec<usize>>,
        inner: &Arc<dyn ExecutionPlan>,
    ) -> Result<Result<ScanSpec, Option<Refusal>>> {
        if inner.is::<EmptyExec>() {
            return Ok(Err(None));
        }
        let Some(table) = TableFiles::of(inner) else {
            return Ok(Err(Some(Refusal::ScanNotParquet)));
        };
        let schema = self.inner.schema();
        let options = HnswOptions::of(state.config_options());
        let store = state.runtime_env().object_store(table.store_url())?;
        apply_settings(&self.shared, &options);
        self.shared.filters.resize(options.filter_cache_size as u64);
        self.shared.columns.resize(options.column_cache_size as u64);
        let sidecars = Sidecars::of(&options, state.runtime_env());
        let Some(files) = plan_files(&self.shared, &table, store, request, &sidecars).await? else {
            return Ok(Err(Some(Refusal::StaleListing)));
        };
        let filter = match conjunction(request.filters.iter().cloned()) {
            None => None,
            Some(predicate) => {
                let over = DFSchema::try_from(Arc::clone(&schema))?;
                Some(RowFilter::new(
                    state.create_physical_expr(predicate, &over)?,
                    &schema,
                )?)
            }
        };
        Ok(Ok(ScanSpec {
            request: Arc::clone(request),
            table,
            files,
            filter,
            projection: projection
                .cloned()
                .unwrap_or_else(|| (0..schema.fields().len()).collect()),
            schema: inner.schema(),
            vector_type: schema.field(request.column).data_type().clone(),
            shared: Arc::clone(&self.shared),
            ef_search: options.ef_search.max(1),
            threads: state.config().target_partitions(),
        }))
    }
}

#[async_trait]
impl TableProvider for VectorTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.inner.constraints()
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.inner.get_table_definition()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.inner.get_column_default(column)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.inner.statistics()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.asked {
            None => self.inner.scan(state, projection, filters, limit).await,
            Some(Asked::Refused(refusal)) => {
                let inner = self.inner.scan(state, projection, filters, limit).await?;
                Ok(Arc::new(RefusedExec::new(inner, *refusal)))
            }
            Some(Asked::Knn(request)) => self.scan_request(state, request, projection, filters).await,
            Some(Asked::Lookup(request)) => self.scan_lookup(state, request, projection, filters).await,
        }
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.inner.insert_into(state, input, insert_op).await
    }
}
