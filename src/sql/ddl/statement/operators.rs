//! pgvector's operators for distances, which DataFusion does not have, and what to write instead.

use datafusion::common::config::SqlParserOptions;
use datafusion::common::plan_datafusion_err;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::dialect::dialect_from_str;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// An operator and the function that gives its distance.
const OPERATORS: &[(&str, &str)] = &[
    ("<->", "array_distance"),
    ("<=>", "cosine_distance"),
    ("<#>", "negative_inner_product"),
];

/// The operators of distances that no function here computes.
const WITHOUT_FUNCTION: &[&str] = &["<+>", "<~>", "<%>"];

/// The call that gives the distance of an operator.
pub(crate) fn call(operator: &str, left: &str, right: &str) -> Option<String> {
    let (_, function) = OPERATORS.iter().find(|(known, _)| *known == operator)?;
    Some(format!("{function}({left}, {right})"))
}

/// The error of a statement that DataFusion refused: where it did not parse, or an operator in it is not known, and one of these operators stands in it,
/// the operator is named, and what to write. Any other error stays as it is.
pub fn name_operator(error: DataFusionError, sql: &str, options: &SqlParserOptions) -> DataFusionError {
    let refused = matches!(
        error.find_root(),
        DataFusionError::SQL(..) | DataFusionError::NotImplemented(_)
    );
    if !refused {
        return error;
    }
    let Some(operator) = find_operator(sql, options) else {
        return error;
    };
    match call(operator, "v", "q") {
        Some(call) => {
            plan_datafusion_err!("there is no operator {operator}; write {call} for v {operator} q")
        }
        None => plan_datafusion_err!(
            "there is no operator {operator}, and no function for its distance; the distances are array_distance(v, q), cosine_distance(v, q) and inner_product(v, q)"
        ),
    }
}

/// The first of these operators in a statement, outside of strings and comments.
fn find_operator(sql: &str, options: &SqlParserOptions) -> Option<&'static str> {
    let dialect = dialect_from_str(options.dialect)?;
    let tokens = Tokenizer::new(dialect.as_ref(), sql).tokenize().ok()?;
    let known = OPERATORS.iter().map(|(operator, _)| *operator);
    let known: Vec<&'static str> = known.chain(WITHOUT_FUNCTION.iter().copied()).collect();
    (0..tokens.len()).find_map(|at| {
        // Dialects cut the three characters into tokens in different ways. Those of strings and comments begin otherwise.
        let text: String = tokens[at..].iter().take(3).map(Token::to_string).collect();
        known.iter().copied().find(|operator| text.starts_with(operator))
    })
}
