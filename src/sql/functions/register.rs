//! Table functions: positional arguments, and an options string last.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::datasource::TableProvider;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;

use super::vector_join::VectorJoin;
use super::vector_search::VectorSearch;
use crate::sql::ddl::command::CommandTable;
use crate::sql::ddl::create_index::CreateIndexCommand;
use crate::sql::ddl::drop_index::DropIndexCommand;
use crate::sql::ddl::indexes::{IndexesCommand, VerifyCommand};
use crate::sql::ddl::option_list::{Key, OptionList, metric, ordered_by};
use crate::sql::ddl::refresh::RefreshCommand;
use crate::sql::ddl::statement::WITH_OPTIONS;
use crate::sql::options::HnswOptions;
use crate::sql::recognize::sort_key::Distance;

/// Registers the table functions.
pub(crate) fn register(ctx: &SessionContext) {
    ctx.register_udtf("hnsw_create_index", Arc::new(CreateIndexFunction));
    ctx.register_udtf("hnsw_drop_index", Arc::new(DropIndexFunction));
    ctx.register_udtf("hnsw_indexes", Arc::new(IndexesFunction));
    ctx.register_udtf("hnsw_verify", Arc::new(VerifyFunction));
    ctx.register_udtf("hnsw_refresh", Arc::new(RefreshFunction));
    ctx.register_udtf("vector_search", Arc::new(VectorSearch));
    ctx.register_udtf("vector_join", Arc::new(VectorJoin));
}

/// `hnsw_create_index('table', 'column' [, 'metric=cosine, m=16, ...'])`.
#[derive(Debug)]
struct CreateIndexFunction;

impl TableFunctionImpl for CreateIndexFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        const NAME: &str = "hnsw_create_index";
        let (table, column, options) = match args.exprs() {
            [table, column] => (table, column, String::new()),
            [table, column, options] => (table, column, text(options, NAME, "options")?),
            _ => {
                return plan_err!(
                    "{NAME} takes a table, a column and perhaps options: {NAME}('t', 'v', 'metric=l2')"
                );
            }
        };
        let mut keys = WITH_OPTIONS.to_vec();
        keys.extend([Key::Name, Key::IfNotExists]);
        Ok(Arc::new(CommandTable::new(CreateIndexCommand {
            table: text(table, NAME, "table")?,
            column: text(column, NAME, "column")?,
            options: OptionList::parse(&options, NAME, &keys)?,
        })))
    }
}

/// `hnsw_drop_index('name' [, 'table'] [, 'if_exists=true'])`.
#[derive(Debug)]
struct DropIndexFunction;

impl TableFunctionImpl for DropIndexFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        const NAME: &str = "hnsw_drop_index";
        let mut texts = vec![];
        for arg in args.exprs() {
            texts.push(text(arg, NAME, "argument")?);
        }
        let options = match texts.last() {
            Some(last) if texts.len() > 1 && crate::sql::ddl::option_list::is_option_list(last) => {
                OptionList::parse(&texts.pop().unwrap_or_default(), NAME, &[Key::IfExists])?
            }
            _ => OptionList::default(),
        };
        let mut texts = texts.into_iter();
        let (Some(name), table, None) = (texts.next(), texts.next(), texts.next()) else {
            return plan_err!(
                "{NAME} takes the name of an index, perhaps its table and options: {NAME}('i', 't')"
            );
        };
        let if_exists = options.if_exists.unwrap_or(false);
        Ok(Arc::new(CommandTable::new(DropIndexCommand {
            name,
            table,
            if_exists,
        })))
    }
}

/// `hnsw_indexes()`.
#[derive(Debug)]
struct IndexesFunction;

impl TableFunctionImpl for IndexesFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        if !args.exprs().is_empty() {
            return plan_err!("hnsw_indexes takes no arguments; filter its rows with WHERE");
        }
        Ok(Arc::new(CommandTable::new(IndexesCommand)))
    }
}

/// `hnsw_verify('table')`.
#[derive(Debug)]
struct VerifyFunction;

impl TableFunctionImpl for VerifyFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let table = one_table(args.exprs(), "hnsw_verify")?;
        Ok(Arc::new(CommandTable::new(VerifyCommand { table })))
    }
}

/// `hnsw_refresh('table')`.
#[derive(Debug)]
struct RefreshFunction;

impl TableFunctionImpl for RefreshFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let table = one_table(args.exprs(), "hnsw_refresh")?;
        Ok(Arc::new(CommandTable::new(RefreshCommand { table })))
    }
}

fn one_table(exprs: &[Expr], function: &str) -> Result<String> {
    match exprs {
        [table] => text(table, function, "table"),
        _ => plan_err!("{function} takes a table: {function}('t')"),
    }
}

/// The distance that a search is by: that of its options, or else of the session.
pub(crate) fn distance(options: &OptionList, settings: &HnswOptions, function: &str) -> Result<Distance> {
    let metric = match options.metric {
        Some(metric) => metric,
        None => metric(&settings.metric, "hnsw.metric")?,
    };
    ordered_by(metric, function)
}

/// A string argument.
pub(crate) fn text(expr: &Expr, function: &str, what: &str) -> Result<String> {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::Utf8View(Some(text))
            | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Ok(text.clone()),
        other => plan_err!("{function}: the {what} must be a string, not {other}"),
    }
}
