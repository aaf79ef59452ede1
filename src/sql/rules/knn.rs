//! The optimizer rule: it swaps the source of one scan, and nothing else.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, TableReference};
use datafusion::datasource::{DefaultTableSource, TableProvider, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, Sort, TableScan, TableSource};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use tracing::warn;

use super::guard::guarded;
use super::point_lookup::look_up_vectors;
use crate::rows::scan::is_parquet_listing;
use crate::sql::options::{HnswOptions, Mode};
use crate::sql::recognize::order_by::{Recognised, recognise};
use crate::sql::recognize::refusal::Refusal;
use crate::sql::search::table::{Asked, VectorTable};
use crate::sql::shared::{Shared, is_path};

/// What the rule is called among the session's optimizer rules.
pub(crate) const NAME: &str = "hnsw_knn";

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
        NAME
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
        let asked = match recognise(sort) {
            Ok(Some(Recognised::Knn(request))) => Asked::Knn(Arc::new(request)),
            // Why not, the rule after this one says.
            Ok(None | Some(Recognised::Refused(_))) => return Ok(Transformed::no(plan)),
            Err(error) => {
                warn!(rule = self.name(), %error, "a search was not recognised");
                return Ok(Transformed::no(plan));
            }
        };
        let ask = |plan: LogicalPlan| {
            let plan = match &asked {
                Asked::Knn(request) if request.reads_subqueries() => {
                    look_up_vectors(plan, request, searchable, &self.shared)?
                }
                _ => plan,
            };
            ask_scans_below(plan, &asked, &self.shared)
        };
        let asked = guarded(self.name(), plan, ask);
        Ok(asked.unwrap_or_else(|plan| Transformed::no(*plan)))
    }
}

/// Puts what a sort or a filter at the top of a plan asks into the scans below it.
pub(crate) fn ask_scans_below(
    plan: LogicalPlan,
    asked: &Asked,
    shared: &Arc<Shared>,
) -> Result<Transformed<LogicalPlan>> {
    plan.map_children(|input| {
        input.transform_down(|node| match node {
            LogicalPlan::TableScan(scan) => Ok(swap_source(scan, asked, shared)),
            // A search of its own below this one is looked at on its own.
            LogicalPlan::Sort(Sort { fetch: Some(_), .. }) => {
                Ok(Transformed::new(node, false, TreeNodeRecursion::Jump))
            }
            node => Ok(Transformed::no(node)),
        })
    })
}

/// Puts what is asked of a table into its scan, if searches over it can be ours.
pub(crate) fn swap_source(scan: TableScan, asked: &Asked, shared: &Arc<Shared>) -> Transformed<LogicalPlan> {
    match searchable(&scan.source) {
        None => Transformed::no(LogicalPlan::TableScan(scan)),
        Some(provider) => {
            if let TableReference::Bare { table } = &scan.table_name
                && is_path(table)
            {
                shared.remember_file_table(table);
            }
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

/// What EXPLAIN will say of a scan of this source, if it was told why there is no search.
pub(crate) fn said_of(source: &Arc<dyn TableSource>) -> Option<Refusal> {
    let provider = &source.downcast_ref::<DefaultTableSource>()?.table_provider;
    provider.downcast_ref::<VectorTable>()?.refusal()
}

/// The provider to search in, if this is a table of Parquet files that is not searched yet.
pub(crate) fn searchable(source: &Arc<dyn TableSource>) -> Option<Arc<dyn TableProvider>> {
    let provider = &source.downcast_ref::<DefaultTableSource>()?.table_provider;
    match provider.downcast_ref::<VectorTable>() {
        Some(table) => table.unsearched().cloned(),
        None => is_parquet_listing(provider.as_ref()).then(|| Arc::clone(provider)),
    }
}
