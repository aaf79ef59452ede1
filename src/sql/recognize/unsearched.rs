//! Distances that order or bound the rows of a table without a search, and why there is none.
//!
//! [`recognise`] looks from a sort down a chain of nodes. This walk looks at a whole plan: it notes every expression
//! that orders or leaves out rows, rewrites it node by node into one over the columns of the scans below, and finds
//! there whether it compares a vector column of that scan with a query vector. So only the scan whose column is
//! compared is told why it is not searched, and not the others of the same query.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, TableReference};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Distinct, Expr, Filter, LogicalPlan, Sort, TableScan};

use super::between::{columns_over, operator};
use super::order_by::{Recognised, recognise};
use super::refusal::Refusal;
use crate::rows::vectors::item_type;
use crate::sql::rules::bind_query::BoundDistance;

/// An expression over more nodes than this is not followed further.
const MOST_NODES: usize = 4096;

/// What the walk has to be told by the rooms above.
pub(crate) struct Questions<'a> {
    /// Whether a scan's table can be searched and is not searched already.
    pub is_unsearched: &'a dyn Fn(&TableScan) -> bool,
    /// Whether a function is a built-in distance, under whatever name.
    pub is_distance: &'a dyn Fn(&ScalarFunction) -> bool,
    /// Why the rank that a filter bounds is not found by a search, if it is a rank by distance over pairs of rows.
    pub why_not_ranked: &'a dyn Fn(&Filter) -> Result<Option<Refusal>>,
}

/// A scan of a plan: its place among the plan's scans, in the order in which a plan is visited with its subqueries,
/// and its table.
pub(crate) type ScanPlace = (usize, TableReference);

/// Whether it is worth while to look for [`unsearched`] distances; most plans have none.
pub(crate) fn may_be_unsearched(plan: &LogicalPlan, questions: &Questions<'_>) -> Result<bool> {
    let any = |is_one: &dyn Fn(&LogicalPlan) -> Result<bool>| {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            found = is_one(node)?;
            Ok(match found {
                true => TreeNodeRecursion::Stop,
                false => TreeNodeRecursion::Continue,
            })
        })?;
        Ok::<bool, DataFusionError>(found)
    };
    let is_unsearched =
        |node: &LogicalPlan| matches!(node, LogicalPlan::TableScan(scan) if (questions.is_unsearched)(scan));
    let has_distance = |node: &LogicalPlan| {
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(calls_distance(e, questions)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    };
    Ok(any(&|node| Ok(is_unsearched(node)))? && any(&has_distance)?)
}

/// The scans whose rows a distance orders or bounds without a search, each with the reason.
pub(crate) fn unsearched(
    plan: &LogicalPlan,
    questions: &Questions<'_>,
) -> Result<BTreeMap<ScanPlace, Refusal>> {
    let mut walk = Walk {
        questions,
        scans: 0,
        uses: 0,
        marks: vec![],
    };
    walk.visit(plan, vec![], None)?;
    Ok(walk.reasons())
}

fn calls_distance(expr: &Expr, questions: &Questions<'_>) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if (questions.is_distance)(call))
}

/// An expression that orders or bounds rows, on its way down to the scans.
#[derive(Clone)]
struct Use {
    /// Which one of the plan.
    number: usize,
    expr: Expr,
    /// Whether it orders rows; otherwise it leaves some out.
    orders: bool,
    /// The reason, once it is known.
    why: Option<Refusal>,
    /// The reason if nothing below gives another.
    otherwise: Refusal,
    /// Whether a filter lies between it and the node at hand.
    filtered: bool,
}

/// What was found at a scan.
struct Mark {
    place: ScanPlace,
    use_number: usize,
    refusal: Refusal,
    /// Whether the query vector comes from another table.
    joined: bool,
    filtered: bool,
}

/// Where the vector that a column is compared with comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryOf {
    /// It is the same for all rows.
    Constant,
    /// It is that of another table's row.
    OtherTable,
    /// It is computed from the same row.
    SameRow,
}

struct Walk<'a> {
    questions: &'a Questions<'a>,
    scans: usize,
    uses: usize,
    marks: Vec<Mark>,
}

impl Walk<'_> {
    /// Looks at a node. `uses` are over its output; `rank` is why a rank over it, if it is a window, is not searched.
    fn visit(&mut self, plan: &LogicalPlan, uses: Vec<Use>, rank: Option<Refusal>) -> Result<()> {
        // Before the subqueries, as a visitor of the plan with its subqueries would count.
        if let LogicalPlan::TableScan(scan) = plan {
            let place = (self.scans, scan.table_name.clone());
            self.scans += 1;
            self.at_scan(scan, place, uses)?;
            return self.visit_subqueries(plan);
        }
        self.visit_subqueries(plan)?;
        let own = self.own_uses(plan, rank)?;
        let rank_below = match plan {
            LogicalPlan::Filter(filter) => (self.questions.why_not_ranked)(filter)?.or(rank),
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => rank,
            _ => None,
        };
        for (at, input) in plan.inputs().into_iter().enumerate() {
            let columns = columns_over(plan, at, input, &elsewhere());
            let mut below = vec![];
            for above in &uses {
                below.extend(above.below(plan, &columns, rank)?);
            }
            for own in &own {
                below.extend(own.within(input)?);
            }
            self.visit(input, below, rank_below)?;
        }
        Ok(())
    }

    fn visit_subqueries(&mut self, plan: &LogicalPlan) -> Result<()> {
        plan.apply_subqueries(|subquery| {
            self.visit(subquery, vec![], None)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// By what a node itself orders or bounds rows, over the columns of its inputs.
    fn own_uses(&mut self, plan: &LogicalPlan, rank: Option<Refusal>) -> Result<Vec<Use>> {
        let mut found = vec![];
        match plan {
            LogicalPlan::Filter(filter) => {
                for conjunct in split_conjunction(&filter.predicate) {
                    found.push(self.bound(conjunct));
                }
            }
            LogicalPlan::Join(join) => {
                let sides = join.on.iter().flat_map(|(left, right)| [left, right]);
                for expr in sides.chain(&join.filter) {
                    found.push(self.bound(expr));
                }
            }
            LogicalPlan::Sort(sort) => {
                let (why, otherwise) = why_not_searched(sort);
                for key in &sort.expr {
                    found.push(self.order(&key.expr, why, otherwise));
                }
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => {
                for key in distinct.sort_expr.iter().flatten() {
                    found.push(self.order(&key.expr, Some(Refusal::Distinct), Refusal::Distinct));
                }
            }
            LogicalPlan::Window(window) => {
                let why = rank.unwrap_or(Refusal::Window);
                for expr in &window.window_expr {
                    if let Expr::WindowFunction(function) = unaliased(expr) {
                        for key in &function.params.order_by {
                            found.push(self.order(&key.expr, Some(why), why));
                        }
                    }
                }
            }
            LogicalPlan::Aggregate(aggregate) => {
                const WHY: Refusal = Refusal::Aggregate;
                for expr in &aggregate.aggr_expr {
                    let Expr::AggregateFunction(function) = unaliased(expr) else {
                        continue;
                    };
                    let keys = function.params.order_by.iter().map(|key| &key.expr);
                    let smallest = matches!(function.func.name(), "min" | "max");
                    let values = function.params.args.iter().filter(|_| smallest);
                    let filter = function.params.filter.iter().map(AsRef::as_ref);
                    for expr in keys.chain(values).chain(filter) {
                        found.push(self.order(expr, Some(WHY), WHY));
                    }
                }
            }
            _ => {}
        }
        Ok(found)
    }

    fn order(&mut self, expr: &Expr, why: Option<Refusal>, otherwise: Refusal) -> Use {
        self.uses += 1;
        Use {
            number: self.uses,
            expr: expr.clone(),
            orders: true,
            why,
            otherwise,
            filtered: false,
        }
    }

    fn bound(&mut self, expr: &Expr) -> Use {
        const WHY: Refusal = Refusal::DistanceThreshold;
        Use {
            orders: false,
            ..self.order(expr, Some(WHY), WHY)
        }
    }

    fn at_scan(&mut self, scan: &TableScan, place: ScanPlace, mut uses: Vec<Use>) -> Result<()> {
        if !(self.questions.is_unsearched)(scan) {
            return Ok(());
        }
        for filter in &scan.filters {
            uses.push(self.bound(filter));
        }
        let schema = scan.source.schema();
        for found in uses {
            if let Some((query, refusal)) = self.reason_at(&found, &schema)? {
                self.marks.push(Mark {
                    place: place.clone(),
                    use_number: found.number,
                    refusal,
                    joined: query == QueryOf::OtherTable,
                    filtered: found.filtered || !scan.filters.is_empty(),
                });
            }
        }
        Ok(())
    }

    /// Why a use does not lead to a search of this table, if it compares a vector of the table with something.
    fn reason_at(&self, found: &Use, schema: &Schema) -> Result<Option<(QueryOf, Refusal)>> {
        let mut reason = None;
        found.expr.apply(|e| {
            let call = match e {
                Expr::ScalarFunction(call) if (self.questions.is_distance)(call) => call,
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            if let Some(query) = compared_with(call, schema, found.why) {
                let why = found.why.unwrap_or(found.otherwise);
                reason = match (query, found.orders) {
                    (QueryOf::Constant, _) => Some((query, why)),
                    (_, false) => None,
                    (QueryOf::OtherTable, true) if matches!(why, Refusal::Join | Refusal::InSubquery) => {
                        Some((query, Refusal::QueryFromJoin))
                    }
                    (QueryOf::OtherTable, true) => Some((query, why)),
                    (QueryOf::SameRow, true) => Some((query, Refusal::QueryNotConstant)),
                };
            }
            Ok(match reason {
                Some(_) => TreeNodeRecursion::Stop,
                None => TreeNodeRecursion::Continue,
            })
        })?;
        Ok(reason)
    }

    /// One reason for each scan: that of the topmost use. A distance between columns of two tables is told to one of
    /// them, which is the one that all rows of are read, or else the last.
    fn reasons(self) -> BTreeMap<ScanPlace, Refusal> {
        let mut chosen: BTreeMap<usize, (bool, usize)> = BTreeMap::new();
        for mark in self.marks.iter().filter(|mark| mark.joined) {
            let this = (!mark.filtered, mark.place.0);
            let best = chosen.entry(mark.use_number).or_insert(this);
            *best = this.max(*best);
        }
        let mut reasons = BTreeMap::new();
        for mark in self.marks {
            let here = chosen
                .get(&mark.use_number)
                .is_none_or(|best| best.1 == mark.place.0);
            if here || !mark.joined {
                reasons.entry(mark.place).or_insert(mark.refusal);
            }
        }
        reasons
    }
}

impl Use {
    /// The same over the columns of one input of a node; `None` if it names none of them.
    /// `rank` is why a rank over the node, if it is a window, is not searched.
    fn below(&self, plan: &LogicalPlan, columns: &[Expr], rank: Option<Refusal>) -> Result<Option<Self>> {
        let schema = plan.schema();
        let mut here = false;
        let expr = replace_columns(&self.expr, |column| {
            let replaced = schema
                .maybe_index_of_column(column)
                .and_then(|at| columns.get(at));
            here |= replaced.is_some_and(|expr| *expr != elsewhere());
            replaced.cloned().unwrap_or_else(elsewhere)
        })?;
        if !here || is_too_large(&expr) {
            return Ok(None);
        }
        let operator = rank
            .filter(|_| matches!(plan, LogicalPlan::Window(_)))
            .or_else(|| operator(plan));
        // A bound of what a window or an aggregate makes of the distances is theirs, and not one of the distances.
        let computed = |e: &Expr| matches!(e, Expr::WindowFunction(_) | Expr::AggregateFunction(_));
        let (orders, why) = match self.orders {
            false if expr.exists(|e| Ok(computed(e)))? => (true, operator),
            orders => (orders, self.why.or(operator)),
        };
        let filtered = self.filtered || matches!(plan, LogicalPlan::Filter(_));
        Ok(Some(Self {
            expr,
            orders,
            why,
            filtered,
            ..self.clone()
        }))
    }

    /// The same as far as it names columns of one input.
    fn within(&self, input: &LogicalPlan) -> Result<Option<Self>> {
        let schema = input.schema();
        let mut here = false;
        let expr = replace_columns(&self.expr, |column| match schema.has_column(column) {
            true => {
                here = true;
                Expr::Column(column.clone())
            }
            false => elsewhere(),
        })?;
        Ok(here.then(|| Self { expr, ..self.clone() }))
    }
}

/// Why a sort is not searched: for certain, and if the nodes below it do not say more.
fn why_not_searched(sort: &Sort) -> (Option<Refusal>, Refusal) {
    match recognise(sort) {
        Ok(Some(Recognised::Refused(Refusal::OperatorBetween))) => (None, Refusal::OperatorBetween),
        Ok(Some(Recognised::Refused(refusal))) => (Some(refusal), refusal),
        Ok(Some(Recognised::Knn(_)) | None) => (None, Refusal::DistanceInExpression),
        Err(_) => (Some(Refusal::StepFailed), Refusal::StepFailed),
    }
}

/// Stands for a column of another input of a join.
fn elsewhere() -> Expr {
    Expr::Placeholder(Placeholder::new_with_field("another table".to_owned(), None))
}

fn replace_columns(expr: &Expr, mut with: impl FnMut(&Column) -> Expr) -> Result<Expr> {
    let replaced = expr.clone().transform_up(|e| match &e {
        Expr::Column(column) => Ok(Transformed::yes(with(column))),
        _ => Ok(Transformed::no(e)),
    });
    replaced.data()
}

fn is_too_large(expr: &Expr) -> bool {
    let mut nodes = 0;
    let counted = expr.exists(|_| {
        nodes += 1;
        Ok(nodes > MOST_NODES)
    });
    counted.unwrap_or(true)
}

fn unaliased(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

/// With what a call compares a vector column of a table, if it does.
fn compared_with(call: &ScalarFunction, schema: &Schema, why: Option<Refusal>) -> Option<QueryOf> {
    // Of an odd column, the reason is that it is one.
    let odd = matches!(why, Some(Refusal::ColumnType | Refusal::VectorNotAColumn));
    let is_vector = |expr: &Expr| match odd {
        true => !expr.column_refs().is_empty(),
        false => is_vector_column(expr, schema),
    };
    match call.args.as_slice() {
        [one] if BoundDistance::of(call).is_some() => is_vector(one).then_some(QueryOf::Constant),
        [left, right] if is_vector(left) && !is_constant(left) => Some(query_of(right)),
        [left, right] if is_vector(right) => Some(query_of(left)),
        _ => None,
    }
}

fn is_vector_column(expr: &Expr, schema: &Schema) -> bool {
    match expr {
        Expr::Alias(alias) => is_vector_column(&alias.expr, schema),
        Expr::Cast(cast) => is_vector_column(&cast.expr, schema),
        Expr::Column(column) => schema
            .field_with_name(&column.name)
            .is_ok_and(|field| item_type(field.data_type()).is_some()),
        _ => false,
    }
}

fn is_constant(expr: &Expr) -> bool {
    query_of(expr) == QueryOf::Constant
}

fn query_of(expr: &Expr) -> QueryOf {
    let other = elsewhere();
    let has = |wanted: &dyn Fn(&Expr) -> bool| expr.exists(|e| Ok(wanted(e))).unwrap_or(true);
    if has(&|e| *e == other) {
        QueryOf::OtherTable
    } else if has(&|e| matches!(e, Expr::Column(_) | Expr::OuterReferenceColumn(..))) || expr.is_volatile() {
        QueryOf::SameRow
    } else {
        QueryOf::Constant
    }
}
