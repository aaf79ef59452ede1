//! The one recogniser: is this Sort a k-NN request, and which?
//!
//! ```text
//! Sort: <distance> [, more keys], fetch = k
//!   Projection / SubqueryAlias / Filter ...      any stack of these
//!     TableScan
//! ```
//!
//! Every expression is traced down to the scan's own columns first, so an alias, a view or common-subexpression
//! elimination above does not matter. What is not surely a request is left alone.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, Sort, TableScan, lit};

use super::query_vector::{QueryVector, is_constant, is_uncorrelated, query_vector};
use super::refusal::Refusal;
use super::sort_key::{Distance, distance_called, find_distance};
use super::trace::{Chain, below};
use crate::rows::vectors::item_type;
use crate::sql::rules::bind_query::BoundDistance;

/// What a query asks of the index: the `k` rows nearest to `query` that pass `filters`.
#[derive(Clone, Debug)]
pub(crate) struct KnnRequest {
    /// The vector column's place in the table's schema.
    pub column: usize,
    /// Its name.
    pub column_name: String,
    /// By which distance the rows are ordered.
    pub distance: Distance,
    /// What they are compared to.
    pub query: QueryVector,
    /// How many rows are wanted, OFFSET included.
    pub k: usize,
    /// Candidates to keep, where the request says so itself.
    pub ef_search: Option<usize>,
    /// Whether rows whose distance is NULL come before all others.
    pub nulls_first: bool,
    /// Whether further keys order the rows whose distances are equal, so that all of them are needed.
    pub ties: bool,
    /// What the rows must satisfy, over the table's own columns.
    pub filters: Vec<Expr>,
    /// How many more filters there are, which read results of subqueries.
    pub late_filters: usize,
}

impl KnnRequest {
    /// Whether results of subqueries are a part of it.
    pub(crate) fn reads_subqueries(&self) -> bool {
        matches!(self.query, QueryVector::Subquery) || self.late_filters > 0
    }
}

/// A Sort by a distance.
#[derive(Debug)]
pub(crate) enum Recognised {
    /// What it asks of the one scan below it.
    Knn(KnnRequest),
    /// Why it cannot be asked of us.
    Refused(Refusal),
}

/// Looks at a Sort. `None` if it does not order by a distance.
pub(crate) fn recognise(sort: &Sort) -> Result<Option<Recognised>> {
    if !mentions_distance(sort) {
        return Ok(None);
    }
    let traced = Chain::below(&sort.input)?;
    let Some(scan) = traced.scan() else {
        return Ok(Some(Recognised::Refused(Refusal::OperatorBetween)));
    };
    let schema = scan.source.schema();
    let keys = sort
        .expr
        .iter()
        .map(|key| traced.down(&key.expr))
        .collect::<Result<Vec<_>>>()?;
    let Some(position) = keys.iter().position(|key| find_distance(key).is_some()) else {
        return Ok(None);
    };
    if position > 0 {
        return Ok(Some(Recognised::Refused(Refusal::DistanceNotFirstKey)));
    }
    Ok(Some(match request(sort, &keys[0], &traced, &schema) {
        Ok(request) => Recognised::Knn(request),
        Err(refusal) => Recognised::Refused(refusal),
    }))
}

/// Whether this is a Sort by a distance over a chain of nodes that ends in a scan of `tables`.
pub(crate) fn searches(plan: &LogicalPlan, tables: &dyn Fn(&TableScan) -> bool) -> bool {
    let LogicalPlan::Sort(sort) = plan else {
        return false;
    };
    let mut end = sort.input.as_ref();
    while let Some(node) = below(end) {
        end = node;
    }
    matches!(end, LogicalPlan::TableScan(scan) if tables(scan)) && mentions_distance(sort)
}

/// A quick look that spares every other query the tracing: a key, or a projection below, names a distance function.
fn mentions_distance(sort: &Sort) -> bool {
    let names = |expr: &Expr| {
        expr.exists(|e| Ok(matches!(e, Expr::ScalarFunction(call) if distance_called(call).is_some())))
            .unwrap_or(false)
    };
    if sort.expr.iter().any(|key| names(&key.expr)) {
        return true;
    }
    let mut nodes = std::iter::successors(Some(sort.input.as_ref()), |node| below(node));
    nodes.any(|node| matches!(node, LogicalPlan::Projection(node) if node.expr.iter().any(names)))
}

fn request(sort: &Sort, key: &Expr, traced: &Chain<'_>, schema: &Schema) -> Result<KnnRequest, Refusal> {
    let found = find_distance(key).ok_or(Refusal::QueryNotConstant)?;
    let (column, query) = match BoundDistance::of(found.call) {
        Some(bound) => (
            vector_column(&found.call.args[0], schema)?,
            QueryVector::Literal(Arc::clone(bound.numbers())),
        ),
        None => {
            let (column, query) = arguments(&found.call.args, schema)?;
            (column, query_vector(query)?)
        }
    };
    let ascending = sort.expr[0].asc != found.flipped;
    if ascending == (found.distance == Distance::InnerProduct) {
        return Err(Refusal::WrongDirection);
    }
    let k = sort.fetch.ok_or(Refusal::NoLimit)?;
    let ties = sort.expr.len() > 1;
    if ties && found.wrapped {
        return Err(Refusal::TieKeysOverExpression);
    }
    let is_threshold = |filter: &&Expr| {
        traced.applied_above.contains(filter) && is_threshold(filter, found.call, found.distance)
    };
    let bounded = traced.conjuncts.iter().any(|filter| is_threshold(&filter));
    let conjuncts = traced
        .conjuncts
        .iter()
        .filter(|filter| !is_threshold(filter))
        .cloned();
    let (late, filters): (Vec<_>, Vec<_>) = conjuncts.partition(reads_subquery);
    for filter in late.iter().map(without_subqueries).chain(filters.iter().cloned()) {
        check_filter(&filter)?;
    }
    Ok(KnnRequest {
        column,
        column_name: schema.field(column).name().clone(),
        distance: found.distance,
        query,
        k,
        ef_search: None,
        // A row without a distance is not within any.
        nulls_first: sort.expr[0].nulls_first && !bounded,
        ties,
        filters,
        late_filters: late.len(),
    })
}

/// Whether a filter leaves out the rows that are farther than some distance, by the distance that rows are ordered by.
///
/// Such rows come after all others, so a filter above the search may leave them out: the search itself need not look
/// at the filter, which would have to decode every vector.
fn is_threshold(filter: &Expr, call: &ScalarFunction, distance: Distance) -> bool {
    let Expr::BinaryExpr(binary) = filter else {
        return false;
    };
    let is_call = |expr: &Expr| matches!(expr, Expr::ScalarFunction(other) if other == call);
    let (op, limit) = match (binary.left.as_ref(), binary.right.as_ref()) {
        (left, limit) if is_call(left) => (Some(binary.op), limit),
        (limit, right) if is_call(right) => (binary.op.swap(), limit),
        _ => return false,
    };
    let nearer = match distance {
        Distance::InnerProduct => matches!(op, Some(Operator::Gt | Operator::GtEq)),
        Distance::L2 | Distance::Cosine => matches!(op, Some(Operator::Lt | Operator::LtEq)),
    };
    nearer && matches!(limit, Expr::Literal(..))
}

/// Which argument is the table's column, and which is the query.
fn arguments<'a>(arguments: &'a [Expr], schema: &Schema) -> Result<(usize, &'a Expr), Refusal> {
    let [left, right] = arguments else {
        return Err(Refusal::QueryNotConstant);
    };
    let (column, query) = match (is_constant(left), is_constant(right)) {
        (false, true) => (left, right),
        (true, false) => (right, left),
        _ => return Err(Refusal::QueryNotConstant),
    };
    let index = vector_column(column, schema)?;
    Ok((index, query))
}

/// The column under casts that keep every value, as type coercion adds them.
fn vector_column(expr: &Expr, schema: &Schema) -> Result<usize, Refusal> {
    match expr {
        Expr::Alias(alias) => vector_column(&alias.expr, schema),
        Expr::Cast(cast) => {
            let index = vector_column(&cast.expr, schema)?;
            if keeps_values(schema.field(index).data_type(), cast.field.data_type()) {
                Ok(index)
            } else {
                Err(Refusal::VectorNotAColumn)
            }
        }
        Expr::Column(column) => {
            let index = schema
                .index_of(&column.name)
                .map_err(|_| Refusal::VectorNotAColumn)?;
            item_type(schema.field(index).data_type()).ok_or(Refusal::ColumnType)?;
            Ok(index)
        }
        _ => Err(Refusal::VectorNotAColumn),
    }
}

/// Whether a cast from one type of vectors to another keeps every number.
pub(crate) fn keeps_values(from: &DataType, to: &DataType) -> bool {
    let widths = item_type(from).zip(item_type(to));
    widths.is_some_and(|(from, to)| width(from) <= width(to))
}

fn width(item: &DataType) -> usize {
    item.primitive_width().unwrap_or(0)
}

/// Whether the rows that satisfy a filter can be found in advance.
pub(crate) fn check_filter(filter: &Expr) -> Result<(), Refusal> {
    if filter.is_volatile() {
        return Err(Refusal::FilterVolatile);
    }
    let unsupported = filter.exists(|e| {
        Ok(matches!(
            e,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
                | Expr::ScalarVariable(..)
        ))
    });
    match unsupported {
        Ok(false) => Ok(()),
        _ => Err(Refusal::FilterNotSupported),
    }
}

fn reads_subquery(filter: &Expr) -> bool {
    filter.exists(|e| Ok(is_uncorrelated(e))).unwrap_or(false)
}

/// The filter with some constant for each result of a subquery.
fn without_subqueries(filter: &Expr) -> Expr {
    let constant = |e: Expr| match is_uncorrelated(&e) {
        true => Ok(Transformed::yes(lit(ScalarValue::Null))),
        false => Ok(Transformed::no(e)),
    };
    let replaced = filter.clone().transform_up(constant).data();
    replaced.unwrap_or_else(|_| filter.clone())
}
