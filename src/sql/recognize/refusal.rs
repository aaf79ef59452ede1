//! Why a k-NN query is left to DataFusion: stable codes, each with a sentence of what to do.

use std::fmt;

/// A reason for which a query that looks like k-NN does not go through [`VectorTable`](crate::sql::VectorTable)'s search.
///
/// The code is stable and shown by EXPLAIN; reasons that concern one file (no sidecar, a stale one) are
/// [`Reason`](crate::sidecar::Reason)s instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// The farthest rows are asked for.
    WrongDirection,
    /// Another key stands before the distance.
    DistanceNotFirstKey,
    /// There is no LIMIT, so every row has to be sorted.
    NoLimit,
    /// One argument is a column, but the other is not constant.
    QueryNotConstant,
    /// The query vector is NULL, empty, or has a NULL in it.
    QueryVectorNull,
    /// The vector column holds something else than floats.
    ColumnType,
    /// The vector is computed from a column.
    VectorNotAColumn,
    /// A filter may give another result for each call.
    FilterVolatile,
    /// A filter holds a subquery or something else that cannot be evaluated for a row on its own.
    FilterNotSupported,
    /// Sort keys follow an expression around the distance, which may round different distances to one value.
    TieKeysOverExpression,
    /// The order is by something computed from the distance, which need not grow with it.
    DistanceInExpression,
    /// A distance leaves rows out, but does not order them under a LIMIT.
    DistanceThreshold,
    /// Duplicates are removed before the nearest rows are taken.
    Distinct,
    /// An aggregate of the distances, or of all rows before they are ordered, is asked for.
    Aggregate,
    /// A window function orders all rows by the distance, or looks at all rows before they are ordered.
    Window,
    /// The rows of several tables are put together before they are ordered.
    Union,
    /// An inner join decides which rows there are before they are ordered.
    Join,
    /// `x IN (SELECT y ...)` or EXISTS, which is a join, decides which rows there are before they are ordered.
    InSubquery,
    /// The query vector is a column of a joined table.
    QueryFromJoin,
    /// Something else between the sort and the scan changes which rows there are.
    OperatorBetween,
    /// Pairs are ranked by distance, but not all pairs of each query with every row.
    RankedPairs,
    /// DataFusion's optimizer is off, and the rules that search are part of it.
    OptimizerOff,
    /// The table's scan is not one of whole Parquet files.
    ScanNotParquet,
    /// A file changed since the table's directory was listed.
    StaleListing,
    /// A step of ours failed, and left the plan to DataFusion.
    StepFailed,
}

impl Refusal {
    /// The code, as EXPLAIN shows it.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::WrongDirection => "wrong_direction",
            Refusal::DistanceNotFirstKey => "distance_not_first_key",
            Refusal::NoLimit => "no_limit",
            Refusal::QueryNotConstant => "query_not_constant",
            Refusal::QueryVectorNull => "query_vector_null",
            Refusal::ColumnType => "column_type",
            Refusal::VectorNotAColumn => "vector_not_a_column",
            Refusal::FilterVolatile => "filter_volatile",
            Refusal::FilterNotSupported => "filter_not_supported",
            Refusal::TieKeysOverExpression => "tie_keys_over_expression",
            Refusal::DistanceInExpression => "distance_in_expression",
            Refusal::DistanceThreshold => "distance_threshold",
            Refusal::Distinct => "distinct",
            Refusal::Aggregate => "aggregate",
            Refusal::Window => "window",
            Refusal::Union => "union",
            Refusal::Join => "join",
            Refusal::InSubquery => "in_subquery",
            Refusal::QueryFromJoin => "query_from_join",
            Refusal::OperatorBetween => "operator_between",
            Refusal::RankedPairs => "ranked_pairs",
            Refusal::OptimizerOff => "optimizer_off",
            Refusal::ScanNotParquet => "scan_not_parquet",
            Refusal::StaleListing => "stale:listing",
            Refusal::StepFailed => "step_failed",
        }
    }
}

/// The code and a sentence.
///
/// What a sentence advises gives the same answer under the condition that it names, and where no such way is known it
/// advises nothing. `tests/sql/advice.rs` follows each.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            Refusal::WrongDirection => {
                "the farthest rows are asked for; an index finds the nearest, which come first by a distance ASC or by \
                 inner_product DESC"
            }
            Refusal::DistanceNotFirstKey => {
                "another sort key comes before the distance, so the first rows need not be the nearest"
            }
            Refusal::NoLimit => "without LIMIT all rows are sorted; if the k nearest are enough, add LIMIT k",
            Refusal::QueryNotConstant => {
                "the query vector differs from row to row; an index is asked for one vector: a literal, a parameter or \
                 an uncorrelated subquery"
            }
            Refusal::QueryVectorNull => {
                "the query vector is NULL, empty or has a NULL in it; every distance is NULL"
            }
            Refusal::ColumnType => "the column does not hold lists of Float16, Float32 or Float64",
            Refusal::VectorNotAColumn => {
                "the vector is computed from a column; an index needs it stored in a column of its own"
            }
            Refusal::FilterVolatile => "a filter is volatile; its rows cannot be found in advance",
            Refusal::FilterNotSupported => {
                "a filter needs more than a row of the table; if that is the result of a subquery, give it as a \
                 literal or a parameter"
            }
            Refusal::TieKeysOverExpression => {
                "sort keys follow an expression around the distance, which may round two distances to one; if such \
                 ties do not matter, order by the distance itself"
            }
            Refusal::DistanceInExpression => {
                "the order is by an expression around the distance; if its value grows strictly with the distance, \
                 order by the distance itself"
            }
            Refusal::DistanceThreshold => {
                "a distance bounds the rows without ordering them, so every vector is compared; if at most k rows \
                 qualify, take them from (SELECT ... WHERE distance < r ORDER BY distance LIMIT k)"
            }
            Refusal::Distinct => {
                "duplicates are removed before the nearest rows are taken; if the rows are distinct as they are, leave \
                 DISTINCT or GROUP BY out"
            }
            Refusal::Aggregate => {
                "an aggregate takes in all rows; min(distance) without GROUP BY is that over (SELECT ... ORDER BY \
                 distance LIMIT 1)"
            }
            Refusal::Window => {
                "a window function takes in all rows; if only row numbers up to k in the order by distance are kept, \
                 without PARTITION BY, number the rows of (SELECT ... ORDER BY distance LIMIT k)"
            }
            Refusal::Union => {
                "the rows of several tables are ordered together; in a UNION ALL, give each branch its own ORDER BY \
                 distance and LIMIT, OFFSET added to it, and leave the outer ones as they are"
            }
            Refusal::Join => {
                "a join decides which rows there are; if no column of the other table is used above it and each row \
                 has at most one match, filter instead: WHERE array_has((SELECT array_agg(key) FROM other WHERE ...), \
                 key)"
            }
            Refusal::InSubquery => {
                "x IN (SELECT y ...) is a join, which decides which rows there are; as a filter it is WHERE \
                 array_has((SELECT array_agg(y) ...), x)"
            }
            Refusal::QueryFromJoin => {
                "the query vector comes from a joined table; if exactly one row of that takes part, compare with a \
                 scalar subquery instead: (SELECT vector FROM other WHERE ...)"
            }
            Refusal::OperatorBetween => {
                "a limit, an outer or anti join or another operator decides which rows there are"
            }
            Refusal::RankedPairs => {
                "ranks by distance are searched over a plain cross join, in partitions by the queries' own columns"
            }
            Refusal::OptimizerOff => {
                "datafusion.optimizer.max_passes is 0, which turns the rules that search off; set it to 1 or more"
            }
            Refusal::ScanNotParquet => "the table is not a listing of whole Parquet files",
            Refusal::StaleListing => {
                "a file changed after the directory was listed; create the table again or restart the session"
            }
            Refusal::StepFailed => "planning the search failed, as the log says; the query runs without it",
        };
        write!(f, "{}: {sentence}", self.code())
    }
}
