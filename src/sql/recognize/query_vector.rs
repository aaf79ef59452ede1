//! The vector that rows are compared to: a literal, or the result of a subquery.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

use super::refusal::Refusal;

/// Where the query vector comes from.
#[derive(Clone, Debug)]
pub(crate) enum QueryVector {
    /// It is in the query: at least one number, as DataFusion's distance functions see them.
    Literal(Arc<[f64]>),
    /// It is the result of an uncorrelated scalar subquery, which DataFusion computes before the scan starts.
    Subquery,
}

/// Whether it is the same for all rows.
pub(crate) fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::ScalarSubquery(_) => is_uncorrelated(expr),
        Expr::Cast(cast) => is_constant(&cast.expr),
        Expr::Alias(alias) => is_constant(&alias.expr),
        _ => false,
    }
}

/// The query vector that a constant expression gives.
pub(crate) fn query_vector(expr: &Expr) -> Result<QueryVector, Refusal> {
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
                QueryVector::Subquery => Ok(QueryVector::Subquery),
                QueryVector::Literal(_) => Err(Refusal::QueryNotConstant),
            },
        },
        Expr::ScalarSubquery(_) => Ok(QueryVector::Subquery),
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

/// A vector of more numbers than this is shortened where a plan shows it.
const SHOWN_WHOLE: usize = 8;

/// A vector as our own nodes show it in a plan: `[0.5, 1]`, or `[0.12, -0.03, ... 384 numbers]`.
pub(crate) fn shown(numbers: &[f64]) -> String {
    // A number that is a float in disguise is shown as short as the float.
    #[expect(clippy::cast_possible_truncation, reason = "it is compared with what is left")]
    let one = |&number: &f64| match number as f32 {
        short if f64::from(short) == number => short.to_string(),
        _ => number.to_string(),
    };
    let some = |numbers: &[f64]| numbers.iter().map(one).collect::<Vec<_>>().join(", ");
    match numbers {
        [first, second, ..] if numbers.len() > SHOWN_WHOLE => {
            format!("[{}, ... {} numbers]", some(&[*first, *second]), numbers.len())
        }
        short => format!("[{}]", some(short)),
    }
}

/// A subquery whose result is the same for all rows.
pub(crate) fn is_uncorrelated(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if subquery.outer_ref_columns.is_empty())
}
