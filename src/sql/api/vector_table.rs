//! The search without SQL, for engines that embed the crate.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, RecordBatch, UInt64Array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, Result, TableReference, exec_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;

use crate::hnsw::VectorMetric;
use crate::rows::scan::matching;
use crate::rows::vectors::{Vectors, item_type};
use crate::sql::api::search_report::SearchReport;
use crate::sql::ddl::option_list::ordered_by;
use crate::sql::ddl::tables::{named_parquet_table, parquet_table};
use crate::sql::functions::vector_search::DISTANCE;
use crate::sql::recognize::order_by::{KnnRequest, check_filter};
use crate::sql::recognize::query_vector::QueryVector;
use crate::sql::recognize::trace::unqualified;
use crate::sql::search::brute_force::distance_of;
use crate::sql::search::table::VectorTable;
use crate::sql::shared::Shared;

/// How a [`VectorTable::search`] goes about it.
#[derive(Clone, Debug)]
pub struct KnnOptions {
    /// The distance; an index of this metric is used. Default: cosine.
    pub metric: VectorMetric,
    /// Candidates that the search keeps, at least; `hnsw.ef_search` when `None`.
    pub ef_search: Option<usize>,
    /// The columns wanted, by name; all when `None`.
    pub projection: Option<Vec<String>>,
    /// What the rows must satisfy, over the table's columns.
    pub filter: Option<Expr>,
}

impl Default for KnnOptions {
    fn default() -> Self {
        Self {
            metric: VectorMetric::Cosine,
            ef_search: None,
            projection: None,
            filter: None,
        }
    }
}

impl VectorTable {
    /// Looks a table up in a context on which [`register`](crate::register) was called: by its name, or by that of its
    /// files where the context takes those (`SessionContext::enable_url_table`).
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such table, or if it is not a listing of Parquet files.
    pub async fn open(ctx: &SessionContext, table: impl Into<TableReference>) -> Result<Self> {
        let (state, table) = (ctx.state(), table.into());
        let provider = match parquet_table(&state, &table).await {
            Ok(provider) => provider,
            // `docs.parquet` was read as table `parquet` of schema `docs`.
            Err(error) => {
                named_parquet_table(&state, &table.to_string())
                    .await
                    .map_err(|_| error)?
                    .provider
            }
        };
        Ok(Self::new(provider, Shared::of(&state)?))
    }

    /// The `k` rows nearest to `query`: the columns asked for, then `_distance` (`Float64`), nearest first.
    ///
    /// The answer is that of `vector_search` in SQL, to the bit; for the inner product, `_distance` is its negative.
    /// Files without a usable index are compared row by row. There are `k` rows whenever the table has as many that
    /// pass the filter: rows whose vector is NULL have a `_distance` of NULL and come last. A zero vector has no
    /// direction, so that under cosine its distance to anything is NULL, and so is that of every row to a zero query.
    /// A query that is not finite gives distances that are not.
    ///
    /// # Errors
    ///
    /// Returns an error if a column does not exist or holds no vectors, if `query` is empty or has another length than
    /// the vectors, if the metric is one that SQL does not have, or if reading fails.
    pub async fn search(
        &self,
        ctx: &SessionContext,
        column: &str,
        query: &[f64],
        k: usize,
        options: &KnnOptions,
    ) -> Result<RecordBatch> {
        let found = self.search_with_report(ctx, column, query, k, options).await;
        found.map(|(rows, _)| rows)
    }

    /// [`search`](Self::search), and whether it went through an index.
    ///
    /// # Errors
    ///
    /// Those of [`search`](Self::search).
    pub async fn search_with_report(
        &self,
        ctx: &SessionContext,
        column: &str,
        query: &[f64],
        k: usize,
        options: &KnnOptions,
    ) -> Result<(RecordBatch, SearchReport)> {
        let state = ctx.state();
        let plan = self.plan_search(column, query, k, options)?;
        let scan = self
            .scan_request(&state, &plan.request, Some(&plan.columns), &plan.request.filters)
            .await?;
        let batches = collect(Arc::clone(&scan), state.task_ctx()).await?;
        let mut rows = concat_batches(&scan.schema(), &batches)?;
        // Where the scan gave all rows, nothing has applied the filter yet.
        if let Some(filter) = conjunction(plan.request.filters.iter().cloned()) {
            let over = DFSchema::try_from(scan.schema())?;
            let filter = state.create_physical_expr(filter, &over)?;
            rows = filter_record_batch(&rows, &matching(&rows, &filter)?)?;
        }
        Ok((plan.finish(&rows)?, SearchReport::of(&scan)))
    }

    fn plan_search(&self, column: &str, query: &[f64], k: usize, options: &KnnOptions) -> Result<Planned> {
        if query.is_empty() {
            return plan_err!("the query vector is empty");
        }
        let schema = self.inner().schema();
        let index = schema.index_of(column)?;
        if item_type(schema.field(index).data_type()).is_none() {
            return plan_err!(
                "column {column} holds no vectors but {}",
                schema.field(index).data_type()
            );
        }
        let distance = ordered_by(options.metric, "VectorTable::search")?;
        let filters = match &options.filter {
            None => vec![],
            Some(filter) => {
                let filter = unqualified(filter)?;
                check_filter(&filter).map_err(|refusal| plan_datafusion_err!("{refusal}"))?;
                vec![filter]
            }
        };
        let mut columns: Vec<usize> = match &options.projection {
            None => (0..schema.fields().len()).collect(),
            Some(names) => names
                .iter()
                .map(|name| schema.index_of(name))
                .collect::<Result<_, _>>()?,
        };
        let wanted = columns.len();
        let vector_at = columns.iter().position(|&c| c == index).unwrap_or_else(|| {
            columns.push(index);
            wanted
        });
        for filter in &filters {
            for column in filter.column_refs() {
                let at = schema.index_of(&column.name)?;
                if !columns.contains(&at) {
                    columns.push(at);
                }
            }
        }
        let request = KnnRequest {
            column: index,
            column_name: column.to_owned(),
            distance,
            query: QueryVector::Literal(query.into()),
            k,
            ef_search: options.ef_search,
            nulls_first: false,
            ties: false,
            filters,
            late_filters: 0,
        };
        Ok(Planned {
            request: Arc::new(request),
            columns,
            wanted,
            vector_at,
            query: query.into(),
        })
    }
}

struct Planned {
    request: Arc<KnnRequest>,
    columns: Vec<usize>,
    wanted: usize,
    vector_at: usize,
    query: Arc<[f64]>,
}

impl Planned {
    /// Orders the rows of the scan, of which there may be a few too many, by their exact distance.
    fn finish(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let vectors = Vectors::of(rows.column(self.vector_at))?;
        let mut order: Vec<(Option<f64>, u64)> = vec![];
        for row in 0..rows.num_rows() {
            let vector = vectors.get(row);
            if let Some(dim) = vector.dim()
                && dim != self.query.len()
            {
                return exec_err!(
                    "the query has {} numbers, but a vector has {dim}",
                    self.query.len()
                );
            }
            let distance = distance_of(self.request.distance, &self.query, vector);
            order.push((distance, row as u64));
        }
        // As SQL sorts in ascending order: NULL comes last.
        order.sort_by(|a, b| {
            let by_distance = match (a.0, b.0) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                (a, b) => a.is_none().cmp(&b.is_none()),
            };
            by_distance.then(a.1.cmp(&b.1))
        });
        order.truncate(self.request.k);
        let places = UInt64Array::from_iter_values(order.iter().map(|o| o.1));
        let chosen = take_record_batch(rows, &places)?;
        let mut fields = chosen.schema().fields()[..self.wanted].to_vec();
        fields.push(Arc::new(Field::new(DISTANCE, DataType::Float64, true)));
        let mut columns: Vec<ArrayRef> = chosen.columns()[..self.wanted].to_vec();
        columns.push(Arc::new(order.iter().map(|o| o.0).collect::<Float64Array>()));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}
