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
    /// Something between the sort and the scan changes which rows there are.
    OperatorBetween,
    /// Pairs are ranked by distance, but not all pairs of each query with every row.
    RankedPairs,
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
            Refusal::OperatorBetween => "operator_between",
            Refusal::RankedPairs => "ranked_pairs",
            Refusal::ScanNotParquet => "scan_not_parquet",
            Refusal::StaleListing => "stale:listing",
            Refusal::StepFailed => "step_failed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self {
            Refusal::WrongDirection => {
                "the farthest rows are asked for; order distances ASC and inner_product DESC"
            }
            Refusal::DistanceNotFirstKey => {
                "another sort key comes before the distance; put the distance first"
            }
            Refusal::NoLimit => "without LIMIT every row is sorted; add LIMIT k",
            Refusal::QueryNotConstant => {
                "the query vector differs from row to row; use a literal, a parameter or an uncorrelated subquery"
            }
            Refusal::QueryVectorNull => {
                "the query vector is NULL, empty or has a NULL in it; every distance is NULL"
            }
            Refusal::ColumnType => "vectors must be lists of Float16, Float32 or Float64",
            Refusal::VectorNotAColumn => {
                "the vector is computed from a column; store it in a column of its own"
            }
            Refusal::FilterVolatile => "a filter is volatile; its rows cannot be found in advance",
            Refusal::FilterNotSupported => "a filter holds a subquery; join or compute it first",
            Refusal::TieKeysOverExpression => {
                "sort keys follow an expression around the distance; order by the distance itself"
            }
            Refusal::OperatorBetween => {
                "a join, aggregate, window, union or limit lies between the sort and the table; search in a subquery"
            }
            Refusal::RankedPairs => {
                "ranks by distance need a plain cross join and partitions by the queries' own columns; use \
                 vector_join with a larger k and put conditions between the tables on its result"
            }
            Refusal::ScanNotParquet => "the table is not a listing of whole Parquet files",
            Refusal::StaleListing => {
                "a file changed after the directory was listed; create the table again or restart the session"
            }
            Refusal::StepFailed => "planning the search failed, as the log says; the query runs without it",
        };
        write!(f, "{}: {advice}", self.code())
    }
}
