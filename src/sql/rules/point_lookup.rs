//! "More like this": the scan that finds the query vector of a search by the row that it belongs to.
//!
//! ```text
//! ORDER BY cosine_distance(embedding, (SELECT embedding FROM t WHERE id = 7)) LIMIT 10
//! ```
//!
//! DataFusion's scan of the subquery decodes every vector of the table to keep one. The rows that a filter selects can
//! be found in the filter's columns alone, so the source of that scan is swapped for one that reads only their vectors.
//! The filter stays above it, and so does whatever complains of more than one row.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableSource};

use crate::rows::vectors::item_type;
use crate::sql::recognize::order_by::{KnnRequest, check_filter, searches};
use crate::sql::recognize::query_vector::{QueryVector, is_uncorrelated};
use crate::sql::recognize::trace::unqualified;
use crate::sql::search::table::{Asked, VectorTable};
use crate::sql::shared::Shared;

/// The provider of a source, if it is a table of Parquet files that nothing was asked of yet.
pub(crate) type Searchable = fn(&Arc<dyn TableSource>) -> Option<Arc<dyn TableProvider>>;

/// Swaps the scans that look up vectors in the uncorrelated subqueries of a search.
pub(crate) fn look_up_vectors(
    search: LogicalPlan,
    request: &KnnRequest,
    searchable: Searchable,
    shared: &Arc<Shared>,
) -> Result<LogicalPlan> {
    let in_subquery = |e: Expr| match e {
        Expr::ScalarSubquery(mut subquery) => {
            let plan = Arc::unwrap_or_clone(subquery.subquery);
            let swapped = in_plan(plan, request, searchable, shared)?;
            subquery.subquery = Arc::new(swapped.data);
            let subquery = Expr::ScalarSubquery(subquery);
            Ok(Transformed::new(
                subquery,
                swapped.transformed,
                TreeNodeRecursion::Jump,
            ))
        }
        e => Ok(Transformed::no(e)),
    };
    let in_node = |node: LogicalPlan| {
        node.map_expressions(|e| match e.exists(|e| Ok(is_uncorrelated(e)))? {
            true => e.transform_down(in_subquery),
            false => Ok(Transformed::no(e)),
        })
    };
    Ok(search.transform_down(in_node)?.data)
}

fn in_plan(
    plan: LogicalPlan,
    request: &KnnRequest,
    searchable: Searchable,
    shared: &Arc<Shared>,
) -> Result<Transformed<LogicalPlan>> {
    // How often a volatile function is called, and for which rows, must not change.
    let is_volatile = |node: &LogicalPlan| Ok(node.expressions().iter().any(Expr::is_volatile));
    if plan.exists(is_volatile)? {
        return Ok(Transformed::no(plan));
    }
    plan.transform_down(|node| match node {
        // A search of its own is looked at on its own.
        node if searches(&node, &|_| true) => Ok(Transformed::new(node, false, TreeNodeRecursion::Jump)),
        LogicalPlan::TableScan(scan) => match lookup(&scan, request, searchable)? {
            Some((provider, lookup)) => {
                let asked = Asked::Lookup(Arc::new(lookup));
                let table = VectorTable::asking(provider, asked, Arc::clone(shared));
                let source = provider_as_source(Arc::new(table));
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan {
                    source,
                    ..scan
                })))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        node => Ok(Transformed::no(node)),
    })
}

/// What to look up in a scan: the vectors of the rows that its filters select, if filters over other columns than
/// vectors say which.
fn lookup(
    scan: &TableScan,
    search: &KnnRequest,
    searchable: Searchable,
) -> Result<Option<(Arc<dyn TableProvider>, KnnRequest)>> {
    let Some(provider) = searchable(&scan.source).filter(|_| scan.fetch.is_none()) else {
        return Ok(None);
    };
    let schema = scan.source.schema();
    let Some(column) = vector_column(scan, &schema, &search.column_name) else {
        return Ok(None);
    };
    let mut filters = vec![];
    for filter in &scan.filters {
        let filter = unqualified(filter)?;
        if check_filter(&filter).is_ok() && !reads_vectors(&filter, &schema) {
            filters.push(filter);
        }
    }
    // A filter without columns selects all rows, or none of them.
    if filters.iter().all(|filter| filter.column_refs().is_empty()) {
        return Ok(None);
    }
    let lookup = KnnRequest {
        column,
        column_name: schema.field(column).name().clone(),
        distance: search.distance,
        query: QueryVector::Literal(Arc::from([])),
        k: 0,
        ef_search: None,
        nulls_first: false,
        ties: false,
        filters,
        late_filters: 0,
    };
    Ok(Some((provider, lookup)))
}

/// The vector column that a scan gives: the one that the search is about, or the first.
fn vector_column(scan: &TableScan, schema: &Schema, preferred: &str) -> Option<usize> {
    let all = || (0..schema.fields().len()).collect();
    let projection = scan.projection.clone().unwrap_or_else(all);
    let is_vector = |&column: &usize| item_type(schema.field(column).data_type()).is_some();
    let vectors: Vec<usize> = projection.into_iter().filter(is_vector).collect();
    let is_preferred = |&&column: &&usize| schema.field(column).name() == preferred;
    vectors.iter().find(is_preferred).or(vectors.first()).copied()
}

fn reads_vectors(filter: &Expr, schema: &Schema) -> bool {
    let is_vector = |name: &str| {
        schema
            .field_with_name(name)
            .is_ok_and(|field| item_type(field.data_type()).is_some())
    };
    filter.column_refs().iter().any(|column| is_vector(&column.name))
}
