//! CREATE INDEX through a plain `ctx.sql`: DataFusion plans it, and this rule makes the plan do something.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{CreateIndex, DdlStatement, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::ddl::command::CommandTable;
use crate::sql::ddl::create_index::CreateIndexCommand;
use crate::sql::ddl::option_list::OptionList;

/// Replaces `CREATE INDEX ... USING hnsw` by a scan of a command.
///
/// DataFusion's planner keeps the names, the column and IF NOT EXISTS, and drops WITH: metric and parameters come
/// from `SET hnsw.*` here. [`HnswSessionExt::hnsw_sql`](crate::sql::ddl::statement::HnswSessionExt::hnsw_sql) takes the whole
/// syntax.
#[derive(Debug)]
pub(crate) struct CreateIndexRule;

impl AnalyzerRule for CreateIndexRule {
    fn name(&self) -> &'static str {
        "hnsw_create_index"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Ddl(DdlStatement::CreateIndex(index))
                if index
                    .using
                    .as_deref()
                    .is_some_and(|method| method.eq_ignore_ascii_case("hnsw")) =>
            {
                scan(index)
            }
            LogicalPlan::Ddl(DdlStatement::CreateIndex(index)) => no_such_method(&index),
            plan => Ok(plan),
        }
    }
}

/// DataFusion has no index of any method, and says of these only that it does not support the plan.
fn no_such_method(index: &CreateIndex) -> Result<LogicalPlan> {
    let columns: Vec<_> = index
        .columns
        .iter()
        .map(|column| column.expr.to_string())
        .collect();
    let found = match &index.using {
        Some(method) => format!("there is no index method '{method}'"),
        None => "the index method is missing".to_owned(),
    };
    let name = index
        .name
        .as_deref()
        .map_or_else(String::new, |name| format!("{name} "));
    plan_err!(
        "CREATE INDEX: {found}; for a column of vectors, write CREATE INDEX {name}ON {} USING hnsw ({})",
        index.table,
        columns.join(", ")
    )
}

fn scan(index: CreateIndex) -> Result<LogicalPlan> {
    if index.unique {
        return plan_err!("an HNSW index cannot be UNIQUE");
    }
    let [column] = index.columns.as_slice() else {
        return plan_err!("an HNSW index has one column; create an index for each vector column");
    };
    let Expr::Column(column) = &column.expr else {
        return plan_err!("an HNSW index is over a column, not over {}", column.expr);
    };
    let command = CreateIndexCommand {
        table: index.table.to_quoted_string(),
        column: column.name.clone(),
        options: OptionList {
            name: index.name,
            if_not_exists: Some(index.if_not_exists),
            ..OptionList::default()
        },
    };
    let source = provider_as_source(Arc::new(CommandTable::new(command)));
    LogicalPlanBuilder::scan("create_index", source, None)?.build()
}
