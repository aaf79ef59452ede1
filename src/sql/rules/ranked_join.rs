//! Neighbors of many rows in standard SQL: `row_number() OVER (PARTITION BY q.id ORDER BY distance(q.v, d.v)) <= k` over
//! a cross join.
//!
//! ```text
//! Filter: rank <= k
//!   Projection / SubqueryAlias / Filter ...
//!     Window: row_number() PARTITION BY <the queries' columns> ORDER BY <distance> [, more keys]
//!       Projection / SubqueryAlias ...
//!         Join: every query with every row of a table of Parquet files
//! ```
//!
//! The join is replaced by one that gives, for each query, a superset of its `k` nearest rows. A partition holds all pairs
//! of some queries, so its first `k` pairs are among those. Numbering, filter and distances stay DataFusion's.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result, ScalarValue};
use datafusion::functions_window::row_number::RowNumber;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionDefinition};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Operator, Window};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use tracing::warn;

use super::guard::guarded;
use super::knn::{ask_scans_below, searchable};
use crate::rows::vectors::item_type;
use crate::sql::join::plan::Side;
use crate::sql::join::ranked_table::{RankedPairs, numbered};
use crate::sql::options::{HnswOptions, Mode};
use crate::sql::recognize::order_by::{KnnRequest, check_filter, keeps_values};
use crate::sql::recognize::query_vector::QueryVector;
use crate::sql::recognize::refusal::Refusal;
use crate::sql::recognize::sort_key::{Distance, find_distance};
use crate::sql::recognize::trace::Chain;
use crate::sql::search::table::Asked;
use crate::sql::shared::Shared;

/// Turns the cross join under a rank by distance into one that looks for near rows.
#[derive(Debug)]
pub(crate) struct RankRule {
    shared: Arc<Shared>,
}

impl RankRule {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl OptimizerRule for RankRule {
    fn name(&self) -> &'static str {
        "hnsw_rank"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else {
            return Ok(Transformed::no(plan));
        };
        if HnswOptions::of(&config.options()).mode == Mode::Off {
            return Ok(Transformed::no(plan));
        }
        let found = self.pairs(filter).unwrap_or_else(|error| {
            warn!(rule = self.name(), %error, "a rank by distance was not recognised");
            None
        });
        // Why a rank by distance is not searched, a later rule says.
        let Some(Ok(pairs)) = found else {
            return Ok(Transformed::no(plan));
        };
        let plan = match guarded(self.name(), plan, |plan| replace_join(plan, pairs)) {
            Ok(replaced) => return Ok(replaced),
            Err(plan) => *plan,
        };
        let refuse = |plan| ask_scans_below(plan, &Asked::Refused(Refusal::StepFailed), &self.shared);
        let refused = guarded(self.name(), plan, refuse);
        Ok(refused.unwrap_or_else(|plan| Transformed::no(*plan)))
    }
}

/// Puts the pairs in the place of the first join below.
fn replace_join(plan: LogicalPlan, pairs: RankedPairs) -> Result<Transformed<LogicalPlan>> {
    let mut pairs = Some(pairs);
    plan.transform_down(|node| match (&node, pairs.take()) {
        (LogicalPlan::Join(join), Some(pairs)) => Ok(Transformed::new(
            pairs.in_place_of(join)?,
            true,
            TreeNodeRecursion::Stop,
        )),
        (_, not_yet) => {
            pairs = not_yet;
            Ok(Transformed::no(node))
        }
    })
}

/// `None` if this is no rank by distance over pairs of a table that can be searched.
type Found = Option<Result<RankedPairs, Refusal>>;

impl RankRule {
    /// Why the rank that a filter bounds is not found by a search, if it is a rank by distance over pairs of rows.
    pub(crate) fn refusal(&self, filter: &Filter) -> Result<Option<Refusal>> {
        Ok(self.pairs(filter)?.and_then(Result::err))
    }

    fn pairs(&self, filter: &Filter) -> Result<Found> {
        let above = Chain::below(&filter.input)?;
        let LogicalPlan::Window(window) = above.end else {
            return Ok(None);
        };
        let Some(function) = only_row_number(window) else {
            return Ok(None);
        };
        let rank = Expr::Column(Column::from(
            window.schema.qualified_field(window.schema.fields().len() - 1),
        ));
        let predicate = above.down(&filter.predicate)?;
        let Some(k) = split_conjunction(&predicate)
            .into_iter()
            .find_map(|p| at_most(p, &rank))
        else {
            return Ok(None);
        };
        let below = Chain::below(&window.input)?;
        let LogicalPlan::Join(join) = below.end else {
            return Ok(None);
        };
        let crosses = join.join_type == JoinType::Inner
            && join.on.is_empty()
            && join.filter.is_none()
            && below.conjuncts.is_empty();
        let keys = function.params.order_by.iter().map(|key| below.down(&key.expr));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let partition = function.params.partition_by.iter().map(|expr| below.down(expr));
        let partition = partition.collect::<Result<Vec<_>>>()?;
        let order = &function.params.order_by;
        let asked = RankedBy {
            keys: &keys,
            ascending: order.first().is_some_and(|key| key.asc),
            nulls_first: order.first().is_some_and(|key| key.nulls_first),
            partition: &partition,
            crosses,
            k,
        };
        // Where both sides could be the rows, the partitions say which are the queries.
        let mut refused = None;
        for rows in [Side::Right, Side::Left] {
            match self.search_in(join, rows, &asked)? {
                None => {}
                Some(Ok(pairs)) => return Ok(Some(Ok(pairs))),
                Some(Err(Refusal::RankedPairs)) if refused.is_some() => {}
                Some(Err(refusal)) => refused = Some(Err(refusal)),
            }
        }
        Ok(refused)
    }

    /// The pairs, if the rows are those of this side.
    fn search_in(&self, join: &Join, rows: Side, asked: &RankedBy<'_>) -> Result<Found> {
        let (table, queries) = match rows {
            Side::Left => (&join.left, &join.right),
            Side::Right => (&join.right, &join.left),
        };
        let chain = Chain::below(table)?;
        let Some((scan, provider)) = chain
            .scan()
            .and_then(|scan| Some((scan, searchable(&scan.source)?)))
        else {
            return Ok(None);
        };
        let Some(first) = asked.keys.first().and_then(find_distance) else {
            return Ok(None);
        };
        let [one, other] = first.call.args.as_slice() else {
            return Ok(None);
        };
        let (Some(row_vector), Some(query_vector)) = (
            vector_at(one, table).or_else(|| vector_at(other, table)),
            vector_at(one, queries).or_else(|| vector_at(other, queries)),
        ) else {
            return Ok(None);
        };
        let of_queries = |expr: &Expr| {
            !expr.is_volatile()
                && expr
                    .column_refs()
                    .iter()
                    .all(|column| queries.schema().has_column(column))
        };
        let schema = scan.source.schema();
        let columns = chain.columns().iter().map(|column| match column {
            Expr::Column(column) => schema.index_of(&column.name).ok(),
            _ => None,
        });
        let Some(columns) = columns.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let ascending = asked.ascending != first.flipped;
        let refusal = if ascending == (first.distance == Distance::InnerProduct) {
            Some(Refusal::WrongDirection)
        } else if asked.keys.len() > 1 && first.wrapped {
            Some(Refusal::TieKeysOverExpression)
        } else if !asked.crosses || !asked.partition.iter().all(of_queries) {
            Some(Refusal::RankedPairs)
        } else {
            chain
                .conjuncts
                .iter()
                .find_map(|filter| check_filter(filter).err())
        };
        if let Some(refusal) = refusal {
            return Ok(Some(Err(refusal)));
        }
        let column = columns[row_vector];
        let request = KnnRequest {
            column,
            column_name: schema.field(column).name().clone(),
            distance: first.distance,
            query: QueryVector::Literal(Arc::from([])),
            k: asked.k,
            ef_search: None,
            nulls_first: asked.nulls_first,
            ties: asked.keys.len() > 1,
            filters: chain.conjuncts,
            late_filters: 0,
        };
        Ok(Some(Ok(RankedPairs {
            schema: numbered(join),
            join: LogicalPlan::Join(join.clone()),
            queries: queries.as_ref().clone(),
            query_vector,
            rows,
            columns,
            provider,
            request: Arc::new(request),
            shared: Arc::clone(&self.shared),
        })))
    }
}

/// What a rank is by.
struct RankedBy<'a> {
    keys: &'a [Expr],
    ascending: bool,
    nulls_first: bool,
    partition: &'a [Expr],
    /// Whether the join pairs every query with every row.
    crosses: bool,
    k: usize,
}

/// The one `row_number()` of a window node that computes nothing else.
fn only_row_number(window: &Window) -> Option<&WindowFunction> {
    let [only] = window.window_expr.as_slice() else {
        return None;
    };
    let mut function = only;
    while let Expr::Alias(alias) = function {
        function = &alias.expr;
    }
    let Expr::WindowFunction(function) = function else {
        return None;
    };
    let WindowFunctionDefinition::WindowUDF(udf) = &function.fun else {
        return None;
    };
    let plain = function.params.filter.is_none() && !function.params.distinct;
    (udf.inner().is::<RowNumber>() && plain).then_some(function)
}

/// `k`, if this predicate says that a rank is at most `k`.
fn at_most(predicate: &Expr, rank: &Expr) -> Option<usize> {
    let Expr::BinaryExpr(binary) = predicate else {
        return None;
    };
    let (op, literal) = match (binary.left.as_ref(), binary.right.as_ref()) {
        (left, Expr::Literal(value, _)) if left == rank => (binary.op, value),
        (Expr::Literal(value, _), right) if right == rank => (binary.op.swap()?, value),
        _ => return None,
    };
    let ScalarValue::UInt64(Some(number)) = literal
        .cast_to(&datafusion::arrow::datatypes::DataType::UInt64)
        .ok()?
    else {
        return None;
    };
    let k = match op {
        Operator::LtEq | Operator::Eq => number,
        Operator::Lt => number.checked_sub(1)?,
        _ => return None,
    };
    usize::try_from(k).ok().filter(|&k| k > 0)
}

/// The place in this side of the join of a vector column, under casts that keep every value.
fn vector_at(expr: &Expr, side: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => vector_at(&alias.expr, side),
        Expr::Column(column) => {
            let at = side.schema().maybe_index_of_column(column)?;
            item_type(side.schema().field(at).data_type()).map(|_| at)
        }
        Expr::Cast(cast) => {
            let at = vector_at(&cast.expr, side)?;
            keeps_values(side.schema().field(at).data_type(), cast.field.data_type()).then_some(at)
        }
        _ => None,
    }
}
