//! The optimizer rule: it swaps the source of one scan, and nothing else.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{DefaultTableSource, TableProvider, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, Sort, TableScan, TableSource};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::point_lookup::look_up_vectors;
use crate::rows::scan::is_parquet_listing;
use crate::sql::options::{HnswOptions, Mode};
use crate::sql::recognize::order_by::{Recognised, recognise};
use crate::sql::search::table::{Asked, VectorTable};
use crate::sql::shared::Shared;

/// Turns the scan under an `ORDER BY distance LIMIT k` into one of [`VectorTable`].
///
/// Sort, limit, projections and filters stay as they are: the new scan has the old one's schema and gives a small
/// superset of the rows that the answer needs. It runs after the built-in rules and changes nothing twice.
#[derive(Debug)]
pub(crate) struct KnnRule {
    shared: Arc<Shared>,
}

impl KnnRule {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl OptimizerRule for KnnRule {
    fn name(&self) -> &'static str {
        "hnsw_knn"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Sort(sort) = &plan else {
            return Ok(Transformed::no(plan));
        };
        if HnswOptions::of(&config.options()).mode == Mode::Off {
            return Ok(Transformed::no(plan));
        }
        let asked = match recognise(sort)? {
            None => return Ok(Transformed::no(plan)),
            Some(Recognised::Knn(request)) => Asked::Knn(Arc::new(request)),
            Some(Recognised::Refused(refusal)) => Asked::Refused(refusal),
        };
        let plan = match &asked {
            Asked::Knn(request) if request.reads_subqueries() => {
                look_up_vectors(plan, request, searchable, &self.shared)?
            }
            _ => plan,
        };
        let LogicalPlan::Sort(sort) = plan else {
            unreachable!("matched above")
        };
        let input = Arc::unwrap_or_clone(sort.input);
        let swapped = input.transform_down(|node| match node {
            LogicalPlan::TableScan(scan) => Ok(swap_source(scan, &asked, &self.shared)),
            // A search of its own below this one is looked at on its own.
            LogicalPlan::Sort(Sort { fetch: Some(_), .. }) => {
                Ok(Transformed::new(node, false, TreeNodeRecursion::Jump))
            }
            node => Ok(Transformed::no(node)),
        })?;
        Ok(swapped.update_data(|input| {
            LogicalPlan::Sort(Sort {
                input: Arc::new(input),
                ..sort
            })
        }))
    }
}

/// Puts what is asked of a table into its scan, if searches over it can be ours.
pub(crate) fn swap_source(scan: TableScan, asked: &Asked, shared: &Arc<Shared>) -> Transformed<LogicalPlan> {
    match searchable(&scan.source) {
        None => Transformed::no(LogicalPlan::TableScan(scan)),
        Some(provider) => {
            let table = VectorTable::asking(provider, asked.clone(), Arc::clone(shared));
            let source = provider_as_source(Arc::new(table));
            Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan }))
        }
    }
}

/// Whether searches over this source can be ours, or are already.
pub(crate) fn is_searchable(source: &Arc<dyn TableSource>) -> bool {
    let source = source.downcast_ref::<DefaultTableSource>();
    source.is_some_and(|source| {
        let provider = source.table_provider.as_ref();
        provider.is::<VectorTable>() || is_parquet_listing(provider)
    })
}

/// The provider to search in, if this is a table of Parquet files that nothing was asked of yet.
pub(crate) fn searchable(source: &Arc<dyn TableSource>) -> Option<Arc<dyn TableProvider>> {
    let provider = &source.downcast_ref::<DefaultTableSource>()?.table_provider;
    match provider.downcast_ref::<VectorTable>() {
        Some(table) => table.unasked().cloned(),
        None => is_parquet_listing(provider.as_ref()).then(|| Arc::clone(provider)),
    }
}
