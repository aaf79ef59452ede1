//! The plan of a join by nearness, for the table function and for ranks over a cross join.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::datasource::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::exec::VectorJoinExec;
use crate::sql::recognize::order_by::KnnRequest;
use crate::sql::search::scan::VectorScanExec;
use crate::sql::search::table::VectorTable;
use crate::sql::shared::Shared;

/// A side of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The first.
    Left,
    /// The second.
    Right,
}

/// What a column of a join is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Joined {
    /// A column of the queries.
    Query(usize),
    /// A column of the table that is searched.
    Row(usize),
    /// The distance.
    Distance,
}

/// The plan of some columns of the queries.
type PlanOf<'a> = dyn Fn(&[usize]) -> Result<LogicalPlan> + Sync + 'a;

/// The join of `queries` (the place of their vector, and the plan of some of their columns) with a table's nearest
/// rows; with all that may be among the nearest, in no order, for a `superset`. `None` if the table cannot be searched.
pub(crate) async fn join_exec(
    state: &dyn Session,
    queries: (usize, &PlanOf<'_>),
    rows: (&Arc<dyn TableProvider>, &Arc<KnnRequest>, &Arc<Shared>),
    columns: &[Joined],
    schema: SchemaRef,
    superset: bool,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (query_vector, plan_of) = queries;
    let (provider, request, shared) = rows;
    let mut of_queries = vec![query_vector];
    let mut of_rows = vec![request.column];
    for column in columns {
        match *column {
            Joined::Query(at) => put(&mut of_queries, at),
            Joined::Row(at) => put(&mut of_rows, at),
            Joined::Distance => {}
        }
    }
    let table = VectorTable::new(Arc::clone(provider), Arc::clone(shared));
    let scan = table
        .scan_request(state, request, Some(&of_rows), &request.filters)
        .await?;
    if scan.is::<EmptyExec>() {
        return Ok(Some(Arc::new(EmptyExec::new(schema))));
    }
    let Some(scan) = scan.downcast_ref::<VectorScanExec>() else {
        return Ok(None);
    };
    let queries = state.create_physical_plan(&plan_of(&of_queries)?).await?;
    let place = |columns: &[usize], at: usize| columns.iter().position(|&c| c == at).unwrap_or_default();
    let output = columns.iter().map(|column| match *column {
        Joined::Query(at) => JoinColumn::Left(place(&of_queries, at)),
        Joined::Row(at) => JoinColumn::Right(place(&of_rows, at)),
        Joined::Distance => JoinColumn::Distance,
    });
    Ok(Some(Arc::new(VectorJoinExec::new(
        queries,
        Arc::clone(scan.spec()),
        output.collect(),
        schema,
        superset,
    ))))
}

fn put(columns: &mut Vec<usize>, column: usize) {
    if !columns.contains(&column) {
        columns.push(column);
    }
}

/// Where the join finds a column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JoinColumn {
    /// A column of the left input, whose first is the vector.
    Left(usize),
    /// A column that is fetched from the right table, whose first is the vector.
    Right(usize),
    /// The distance.
    Distance,
}
