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

use datafusion::arrow::array::{Array, ArrayRef, Float64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, Sort, TableScan};

use super::bind::BoundDistance;
use super::chain::{Chain, below};
use super::refusal::Refusal;
use crate::hnsw::VectorMetric;
use crate::rows::vectors::item_type;

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
}

/// The distance functions that DataFusion has built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) enum Distance {
    /// `array_distance`, nearest first in ascending order.
    L2,
    /// `cosine_distance`, nearest first in ascending order.
    Cosine,
    /// `inner_product`, nearest first in descending order.
    InnerProduct,
}

impl Distance {
    /// The distance that a function of DataFusion computes.
    pub(crate) fn of(function: &str) -> Option<Self> {
        match function {
            "array_distance" => Some(Distance::L2),
            "cosine_distance" => Some(Distance::Cosine),
            "inner_product" => Some(Distance::InnerProduct),
            _ => None,
        }
    }

    /// The distance that an index of this metric serves.
    pub(crate) fn of_metric(metric: VectorMetric) -> Option<Self> {
        [Distance::L2, Distance::Cosine, Distance::InnerProduct]
            .into_iter()
            .find(|d| d.metric() == metric)
    }

    /// The metric of an index that serves it.
    pub(crate) fn metric(self) -> VectorMetric {
        match self {
            Distance::L2 => VectorMetric::Euclidean,
            Distance::Cosine => VectorMetric::Cosine,
            Distance::InnerProduct => VectorMetric::DotProduct,
        }
    }
}

/// Where the query vector comes from.
#[derive(Clone, Debug)]
pub(crate) enum QueryVector {
    /// It is in the query: at least one number, as DataFusion's distance functions see them.
    Literal(Arc<[f64]>),
    /// It is the result of an uncorrelated scalar subquery, cast to these types one after the other.
    Subquery {
        /// One row of one column.
        plan: Arc<LogicalPlan>,
        /// The innermost cast first.
        casts: Vec<DataType>,
    },
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
    for filter in &traced.conjuncts {
        check_filter(filter)?;
    }
    Ok(KnnRequest {
        column,
        column_name: schema.field(column).name().clone(),
        distance: found.distance,
        query,
        k,
        ef_search: None,
        nulls_first: sort.expr[0].nulls_first,
        ties,
        filters: traced.conjuncts.clone(),
    })
}

fn distance_called(call: &ScalarFunction) -> Option<Distance> {
    match BoundDistance::of(call) {
        Some(bound) => Some(bound.distance()),
        None => Distance::of(call.func.name()),
    }
}

/// A distance in a sort key.
pub(crate) struct Found<'a> {
    /// Which.
    pub distance: Distance,
    /// Its call.
    pub call: &'a ScalarFunction,
    /// An odd number of negations lies around it.
    pub flipped: bool,
    /// Something lies around it that may round.
    pub wrapped: bool,
}

/// Finds the distance in a sort key, through aliases and monotone arithmetic with finite constants.
pub(crate) fn find_distance(key: &Expr) -> Option<Found<'_>> {
    fn wrap(found: Found<'_>, flip: bool) -> Found<'_> {
        Found {
            flipped: found.flipped != flip,
            wrapped: true,
            ..found
        }
    }
    match key {
        Expr::Alias(alias) => find_distance(&alias.expr),
        Expr::ScalarFunction(call) => Some(Found {
            distance: distance_called(call)?,
            call,
            flipped: false,
            wrapped: false,
        }),
        Expr::Negative(inner) => {
            // Negation is exact: no two distances become one.
            find_distance(inner).map(|found| Found {
                flipped: !found.flipped,
                ..found
            })
        }
        Expr::BinaryExpr(binary) => match (finite(&binary.left), binary.op, finite(&binary.right)) {
            (Some(_), Operator::Plus, None) => Some(wrap(find_distance(&binary.right)?, false)),
            (None, Operator::Plus | Operator::Minus, Some(_)) => {
                Some(wrap(find_distance(&binary.left)?, false))
            }
            (Some(_), Operator::Minus, None) => Some(wrap(find_distance(&binary.right)?, true)),
            (Some(c), Operator::Multiply, None) if c != 0.0 => {
                Some(wrap(find_distance(&binary.right)?, c < 0.0))
            }
            (None, Operator::Multiply | Operator::Divide, Some(c)) if c != 0.0 => {
                Some(wrap(find_distance(&binary.left)?, c < 0.0))
            }
            _ => None,
        },
        _ => None,
    }
}

fn finite(expr: &Expr) -> Option<f64> {
    let Expr::Literal(value, _) = expr else {
        return None;
    };
    match value.cast_to(&DataType::Float64).ok()? {
        ScalarValue::Float64(Some(number)) if number.is_finite() => Some(number),
        _ => None,
    }
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

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::ScalarSubquery(subquery) => subquery.outer_ref_columns.is_empty(),
        Expr::Cast(cast) => is_constant(&cast.expr),
        Expr::Alias(alias) => is_constant(&alias.expr),
        _ => false,
    }
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

fn query_vector(expr: &Expr) -> Result<QueryVector, Refusal> {
    match expr {
        Expr::Alias(alias) => query_vector(&alias.expr),
        Expr::Literal(value, _) => literal(value),
        Expr::Cast(cast) => match literal_below(&cast.expr) {
            Some(value) => literal(
                &value
                    .cast_to(cast.field.data_type())
                    .map_err(|_| Refusal::QueryNotConstant)?,
            ),
            None => match query_vector(&cast.expr)? {
                QueryVector::Subquery { plan, mut casts } => {
                    casts.push(cast.field.data_type().clone());
                    Ok(QueryVector::Subquery { plan, casts })
                }
                QueryVector::Literal(_) => Err(Refusal::QueryNotConstant),
            },
        },
        Expr::ScalarSubquery(subquery) if !is_volatile(&subquery.subquery) => Ok(QueryVector::Subquery {
            plan: Arc::clone(&subquery.subquery),
            casts: vec![],
        }),
        _ => Err(Refusal::QueryNotConstant),
    }
}

/// The constant under casts, cast.
pub(crate) fn literal_below(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Alias(alias) => literal_below(&alias.expr),
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(cast) => literal_below(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
        _ => None,
    }
}

fn literal(value: &ScalarValue) -> Result<QueryVector, Refusal> {
    let doubles = as_doubles(value).ok_or(Refusal::QueryVectorNull)?;
    Ok(QueryVector::Literal(doubles.into()))
}

/// The numbers of a list value as DataFusion's distance functions see them; `None` for NULL, an empty list, or a
/// NULL inside.
pub(crate) fn as_doubles(value: &ScalarValue) -> Option<Vec<f64>> {
    let list: ArrayRef = match value {
        ScalarValue::List(list) => (!list.is_null(0)).then(|| list.value(0))?,
        ScalarValue::LargeList(list) => (!list.is_null(0)).then(|| list.value(0))?,
        ScalarValue::FixedSizeList(list) => (!list.is_null(0)).then(|| list.value(0))?,
        _ => return None,
    };
    let doubles = cast(&list, &DataType::Float64).ok()?;
    let doubles = doubles.as_any().downcast_ref::<Float64Array>()?;
    (doubles.null_count() == 0 && !doubles.is_empty()).then(|| doubles.values().to_vec())
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

fn is_volatile(plan: &LogicalPlan) -> bool {
    plan.exists(|node| {
        node.expressions()
            .iter()
            .map(|e| Ok(e.is_volatile()))
            .reduce(or)
            .unwrap_or(Ok(false))
    })
    .unwrap_or(true)
}

fn or(a: Result<bool>, b: Result<bool>) -> Result<bool> {
    Ok(a? || b?)
}
