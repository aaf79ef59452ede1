//! One statement with the whole syntax of `CREATE INDEX` and `DROP INDEX`.
//!
//! DataFusion parses both and then drops half of the first (`WITH`, operator classes) and refuses
//! the second. [`desugar`] turns them into a call of a table function with the same meaning (and `RESET hnsw.m` into
//! a `SET`), and [`HnswSessionExt::hnsw_sql`] runs that; any other statement goes to DataFusion as it is.

use async_trait::async_trait;
use datafusion::common::config::SqlParserOptions;
use datafusion::common::{Result, plan_err};
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, ResetStatement, Statement as DFStatement};
use datafusion::sql::sqlparser::ast::{BinaryOperator, OrderByOptions};
use datafusion::sql::sqlparser::ast::{
    CreateIndex, Expr, IndexColumn, IndexOption, IndexType, ObjectType, Statement, UnaryOperator, Value,
};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, dialect_from_str};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use self::names::Names;
pub(crate) use self::operators::call;
pub use self::operators::name_operator;
use super::option_list::{Key, OptionList, metrics_in_sql};
use crate::hnsw::VectorMetric;

/// The options of `CREATE INDEX ... WITH (...)`.
pub(crate) const WITH_OPTIONS: &[Key] = &[
    Key::Metric,
    Key::M,
    Key::EfConstruction,
    Key::Seed,
    Key::Stored,
    Key::Threads,
];

/// What pgvector's operator classes begin with: `vector_l2_ops` is that of metric `l2`.
const OPERATOR_CLASSES: [&str; 2] = ["vector_", "halfvec_"];

/// Runs a statement that may be one of ours.
#[async_trait]
pub trait HnswSessionExt {
    /// Like [`SessionContext::sql`], with the whole syntax of `CREATE INDEX ... USING hnsw` and
    /// `DROP INDEX`:
    ///
    /// ```sql
    /// CREATE INDEX [IF NOT EXISTS] [name] ON t USING hnsw (column [vector_cosine_ops | ...])
    ///     [WITH (metric = 'cosine', m = 16, ef_construction = 200, seed = 42, stored = 'f32')]
    /// DROP INDEX [IF EXISTS] name [ON t]
    /// RESET hnsw.setting
    /// ```
    ///
    /// An index is built when the returned frame is collected.
    ///
    /// # Errors
    ///
    /// Those of [`SessionContext::sql`], and those that [`desugar`] gives.
    async fn hnsw_sql(&self, sql: &str) -> Result<DataFrame>;
}

#[async_trait]
impl HnswSessionExt for SessionContext {
    async fn hnsw_sql(&self, sql: &str) -> Result<DataFrame> {
        let options = self.state().config_options().sql_parser.clone();
        let ours = desugar(sql, &options)?;
        let planned = self.sql(ours.as_deref().unwrap_or(sql)).await;
        planned.map_err(|error| name_operator(error, sql, &options))
    }
}

/// The SQL that does what this `CREATE INDEX ... USING hnsw`, `DROP INDEX` or `RESET hnsw...` says; `None` for any
/// other statement, also for one that does not parse.
///
/// # Errors
///
/// For a statement that is ours and asks for something that there is not: several columns, an
/// expression, `UNIQUE`, `WHERE`, an unknown option. Also for several statements in one string if
/// one of them is ours.
pub fn desugar(sql: &str, options: &SqlParserOptions) -> Result<Option<String>> {
    if !may_be_ours(sql) {
        return Ok(None);
    }
    let Some(mut statements) = parse(sql, options) else {
        return Ok(None);
    };
    let ours = |statement: &DFStatement| match statement {
        DFStatement::Statement(statement) => match statement.as_ref() {
            Statement::CreateIndex(index) => uses_hnsw(index),
            Statement::Drop { object_type, .. } => *object_type == ObjectType::Index,
            _ => false,
        },
        DFStatement::Reset(ResetStatement::Variable(name)) => reset::setting(name).is_some(),
        _ => false,
    };
    if !statements.iter().any(ours) {
        return Ok(None);
    }
    if statements.len() > 1 {
        return plan_err!(
            "found {} statements in one string; run them one by one",
            statements.len()
        );
    }
    let statement = match statements.pop() {
        Some(DFStatement::Statement(statement)) => statement,
        Some(DFStatement::Reset(ResetStatement::Variable(name))) => {
            return reset::setting(&name)
                .map(|setting| reset::reset(&setting))
                .transpose();
        }
        _ => return Ok(None),
    };
    let names = Names {
        lower_case: options.enable_ident_normalization,
    };
    match *statement {
        Statement::CreateIndex(index) => create_index(index, &names).map(Some),
        statement @ Statement::Drop { .. } => drop_index(statement, &names).map(Some),
        _ => Ok(None),
    }
}

/// The statements, if they parse: in the session's dialect, or else (few dialects know the `WITH`
/// of an index) in the generic one. `IF NOT EXISTS` without a name parses in none of them.
fn parse(sql: &str, options: &SqlParserOptions) -> Option<Vec<DFStatement>> {
    let with = |dialect: &dyn Dialect| {
        let parser = DFParserBuilder::new(sql)
            .with_dialect(dialect)
            .with_recursion_limit(options.recursion_limit.get());
        Some(parser.build().ok()?.parse_statements().ok()?.into())
    };
    with(dialect_from_str(options.dialect)?.as_ref())
        .or_else(|| with(&GenericDialect {}))
        .or_else(|| parse_unnamed(sql, options))
}

/// `CREATE INDEX IF NOT EXISTS ON t ...`, which sqlparser takes only without `IF NOT EXISTS` or with a name.
fn parse_unnamed(sql: &str, options: &SqlParserOptions) -> Option<Vec<DFStatement>> {
    const WORDS: [Keyword; 6] = [
        Keyword::CREATE,
        Keyword::INDEX,
        Keyword::IF,
        Keyword::NOT,
        Keyword::EXISTS,
        Keyword::ON,
    ];
    let dialect = GenericDialect {};
    let mut tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().ok()?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    let begin = tokens.iter().position(|token| token.token != Token::SemiColon)?;
    let words = tokens[begin..]
        .iter()
        .take(WORDS.len())
        .map(|token| match &token.token {
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        });
    if !words.eq(WORDS) {
        return None;
    }
    tokens.drain(begin + 2..begin + 5);
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(options.recursion_limit.get())
        .with_tokens_with_locations(tokens);
    let mut statements = parser.parse_statements().ok()?;
    if let Some(Statement::CreateIndex(index)) = statements.first_mut() {
        index.if_not_exists = true;
    }
    let statements = statements
        .into_iter()
        .map(|one| DFStatement::Statement(Box::new(one)));
    Some(statements.collect())
}

/// A look at the first word, which spares queries the parsing.
fn may_be_ours(sql: &str) -> bool {
    let word = first_word(sql);
    ["CREATE", "DROP", "RESET"]
        .iter()
        .any(|ours| word.eq_ignore_ascii_case(ours))
}

/// The first word of the statement: comments, white space and empty statements do not count.
fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, behind)| behind)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, behind)| behind)
        } else {
            let end = rest
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            return &rest[..end];
        };
    }
}

fn uses_hnsw(index: &CreateIndex) -> bool {
    let behind = index.index_options.iter().find_map(|option| match option {
        IndexOption::Using(kind) => Some(kind),
        IndexOption::Comment(_) => None,
    });
    match index.using.as_ref().or(behind) {
        Some(IndexType::Custom(kind)) => kind.value.eq_ignore_ascii_case("hnsw"),
        _ => false,
    }
}

fn create_index(index: CreateIndex, names: &Names) -> Result<String> {
    const FUNCTION: &str = "CREATE INDEX ... USING hnsw";
    let comment = |option: &IndexOption| matches!(option, IndexOption::Comment(_));
    if index.unique {
        return plan_err!("{FUNCTION}: an HNSW index cannot be UNIQUE; leave the word out");
    }
    if index.predicate.is_some() {
        return plan_err!(
            "{FUNCTION}: an index covers all rows of its table; leave WHERE out, queries may filter as they like"
        );
    }
    if !index.include.is_empty() {
        return plan_err!("{FUNCTION}: leave INCLUDE out; the other columns are read from the table's files");
    }
    if index.nulls_distinct.is_some() {
        return plan_err!("{FUNCTION}: leave NULLS [NOT] DISTINCT out; it belongs to unique indexes");
    }
    if !index.alter_options.is_empty() || index.index_options.iter().any(comment) {
        return plan_err!("{FUNCTION}: leave COMMENT, ALGORITHM and LOCK out; options go into WITH (...)");
    }
    let [column] = index.columns.as_slice() else {
        return plan_err!(
            "{FUNCTION}: an index covers one column, not {}; create an index for each",
            index.columns.len()
        );
    };
    let (column, class_metric) = indexed_column(column, names, FUNCTION)?;

    let mut options = OptionList::default();
    for option in &index.with {
        let (key, value) = with_option(option, FUNCTION)?;
        options.set(&key, &value, FUNCTION, WITH_OPTIONS)?;
    }
    match (class_metric, options.metric) {
        (Some(class), Some(metric)) if class != metric => {
            return plan_err!(
                "{FUNCTION}: the operator class means metric = '{class}' but WITH says '{metric}'; keep one"
            );
        }
        (Some(class), _) => options.metric = Some(class),
        (None, _) => {}
    }
    options.name = index
        .name
        .as_ref()
        .map(|name| names.index(name, FUNCTION))
        .transpose()?;
    options.if_not_exists = index.if_not_exists.then_some(true);

    let table = names.table(&index.table_name);
    let call = [table, column, options.to_text()]
        .map(|argument| literal(&argument))
        .join(", ");
    Ok(format!("SELECT * FROM hnsw_create_index({call})"))
}

/// The column's name, and the metric if an operator class names one.
fn indexed_column(
    column: &IndexColumn,
    names: &Names,
    function: &str,
) -> Result<(String, Option<VectorMetric>)> {
    let IndexColumn {
        column: ordered,
        operator_class,
    } = column;
    let Expr::Identifier(name) = &ordered.expr else {
        return plan_err!(
            "{function}: an index covers a column of the table, not the expression {}",
            ordered.expr
        );
    };
    if ordered.options
        != (OrderByOptions {
            asc: None,
            nulls_first: None,
        })
        || ordered.with_fill.is_some()
    {
        return plan_err!("{function}: leave the order of column {name} out; an HNSW index has none");
    }
    let metric = match operator_class {
        None => None,
        Some(class) => {
            let class = class.to_string().to_ascii_lowercase();
            let classes = || {
                metrics_in_sql()
                    .flat_map(|metric| OPERATOR_CLASSES.map(|of| (format!("{of}{metric}_ops"), metric)))
            };
            let Some((_, metric)) = classes().find(|(known, _)| *known == class) else {
                let known: Vec<_> = classes().map(|(name, _)| name).collect();
                return plan_err!(
                    "{function}: there is no operator class {class}; use one of {}, or WITH (metric = ...)",
                    known.join(", ")
                );
            };
            Some(metric)
        }
    };
    Ok((names.exact(name), metric))
}

/// `key = value` of a `WITH (...)`.
fn with_option(option: &Expr, function: &str) -> Result<(String, String)> {
    if let Expr::BinaryOp {
        left,
        op: BinaryOperator::Eq,
        right,
    } = option
        && let Expr::Identifier(key) = left.as_ref()
        && let Some(value) = plain_value(right)
    {
        return Ok((key.value.clone(), value));
    }
    plan_err!("{function}: expected WITH (key = value, ...) with plain values, found '{option}'")
}

fn plain_value(value: &Expr) -> Option<String> {
    match value {
        Expr::Identifier(word) => Some(word.value.clone()),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => Some(format!("-{}", plain_value(expr)?)),
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => Some(number.clone()),
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Some(text.clone()),
            Value::Boolean(truth) => Some(truth.to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn drop_index(statement: Statement, names: &Names) -> Result<String> {
    const FUNCTION: &str = "DROP INDEX";
    let Statement::Drop {
        if_exists,
        names: dropped,
        table,
        purge,
        temporary,
        ..
    } = statement
    else {
        return plan_err!("{FUNCTION}: not a DROP INDEX");
    };
    if purge || temporary {
        return plan_err!("{FUNCTION}: leave PURGE and TEMPORARY out");
    }
    let [name] = dropped.as_slice() else {
        return plan_err!("{FUNCTION}: drop one index at a time, not {}", dropped.len());
    };
    let mut call = literal(&names.index(name, FUNCTION)?);
    if let Some(table) = &table {
        call += ", ";
        call += &literal(&names.table(table));
    }
    if if_exists {
        call += ", 'if_exists=true'";
    }
    Ok(format!("SELECT * FROM hnsw_drop_index({call})"))
}

/// A string as an SQL literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

mod names;
mod operators;
mod reset;
#[cfg(test)]
mod tests;
