//! The distance functions, and the distance in a sort key.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_nested::cosine_distance::CosineDistance;
use datafusion::functions_nested::distance::ArrayDistance;
use datafusion::functions_nested::inner_product::InnerProduct;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, Operator, ScalarUDF};

use crate::hnsw::VectorMetric;
use crate::sql::rules::bind_query::BoundDistance;

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
    /// The distance that a function computes, if it is one of DataFusion's own three.
    ///
    /// The name says nothing: a session may have a function of its own under it.
    pub(crate) fn of(function: &ScalarUDF) -> Option<Self> {
        let function = function.inner();
        if function.is::<ArrayDistance>() {
            Some(Distance::L2)
        } else if function.is::<CosineDistance>() {
            Some(Distance::Cosine)
        } else if function.is::<InnerProduct>() {
            Some(Distance::InnerProduct)
        } else {
            None
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

/// The distance that a call computes, with the query vector inside of the function or not.
pub(crate) fn distance_called(call: &ScalarFunction) -> Option<Distance> {
    match BoundDistance::of(call) {
        Some(bound) => Some(bound.distance()),
        None => Distance::of(&call.func),
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
