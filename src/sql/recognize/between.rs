//! What nodes of a plan do to the columns and rows that pass through them.

use datafusion::common::JoinType;
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan};

use super::refusal::Refusal;

/// The output columns of a node as expressions over one of its inputs; `elsewhere` stands for what is not of that
/// input.
pub(crate) fn columns_over(
    plan: &LogicalPlan,
    at: usize,
    input: &LogicalPlan,
    elsewhere: &Expr,
) -> Vec<Expr> {
    let passed = || input.schema().columns().into_iter().map(Expr::Column);
    match plan {
        LogicalPlan::Projection(node) => node.expr.clone(),
        LogicalPlan::Distinct(Distinct::On(node)) => node.select_expr.clone(),
        LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Distinct(Distinct::All(_))
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_) => passed().collect(),
        LogicalPlan::Window(node) => passed().chain(node.window_expr.iter().cloned()).collect(),
        LogicalPlan::Aggregate(node) if !matches!(node.group_expr.as_slice(), [Expr::GroupingSet(_)]) => {
            let groups = node.group_expr.iter().cloned();
            groups.chain(node.aggr_expr.iter().cloned()).collect()
        }
        LogicalPlan::Join(node) => of_join(node, at, elsewhere),
        // Other nodes pass on some columns under their names.
        _ => {
            let columns = plan.schema().columns().into_iter();
            let passed = columns.map(|column| match input.schema().has_column(&column) {
                true => Expr::Column(column),
                false => elsewhere.clone(),
            });
            passed.collect()
        }
    }
}

fn of_join(join: &Join, at: usize, elsewhere: &Expr) -> Vec<Expr> {
    let (left, right) = match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => (true, true),
    };
    let side = |is_out: bool, is_asked: bool, plan: &LogicalPlan| {
        let columns = plan.schema().columns().into_iter();
        let columns = columns.map(move |column| match is_asked {
            true => Expr::Column(column),
            false => elsewhere.clone(),
        });
        columns.filter(|_| is_out).collect::<Vec<_>>()
    };
    let mut columns = side(left, at == 0, &join.left);
    columns.extend(side(right, at == 1, &join.right));
    columns
}

/// The reason for which a sort above this node cannot be a search below it. `None` if rows only pass through.
pub(crate) fn operator(plan: &LogicalPlan) -> Option<Refusal> {
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_) => None,
        LogicalPlan::Sort(sort) => sort.fetch.map(|_| Refusal::OperatorBetween),
        LogicalPlan::Distinct(_) => Some(Refusal::Distinct),
        // DISTINCT becomes an aggregation that computes nothing.
        LogicalPlan::Aggregate(node) if node.aggr_expr.is_empty() => Some(Refusal::Distinct),
        LogicalPlan::Aggregate(_) => Some(Refusal::Aggregate),
        LogicalPlan::Window(_) => Some(Refusal::Window),
        LogicalPlan::Union(_) => Some(Refusal::Union),
        LogicalPlan::Join(join) => Some(match join.join_type {
            JoinType::LeftSemi | JoinType::RightSemi => Refusal::InSubquery,
            JoinType::Inner => Refusal::Join,
            _ => Refusal::OperatorBetween,
        }),
        _ => Some(Refusal::OperatorBetween),
    }
}
