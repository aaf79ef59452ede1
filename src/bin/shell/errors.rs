//! Errors as they are shown.

use std::error::Error;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

/// The error with its causes, each of which is told once.
///
/// The text of most errors of DataFusion holds that of their causes already, and some hold it twice.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let text = match cause.downcast_ref::<DataFusionError>() {
            Some(error) => of_datafusion(error),
            None => cause.to_string(),
        };
        let new = !text.is_empty() && !told.contains(plain(&text));
        if new && told.is_empty() {
            told = text;
        } else if new {
            told = format!("{told}: {text}");
        }
    }
    told
}

fn of_datafusion(error: &DataFusionError) -> String {
    let mut text = error.to_string();
    // The parser's error is shown with the name that it has in Rust's code.
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(DataFusionError::SQL(parser, _)) = error.downcast_ref::<DataFusionError>() {
            text = text.replace(&format!("{parser:?}"), without_name(&parser.to_string()));
        }
        cause = error.source();
    }
    once(&text).to_owned()
}

/// The text of a cause as it stands in the text of what it caused.
fn plain(text: &str) -> &str {
    without_name(once(text))
}

fn without_name(text: &str) -> &str {
    // ParserError's own first words.
    let name = ParserError::ParserError(String::new()).to_string();
    text.strip_prefix(name.as_str()).unwrap_or(text)
}

/// `Parquet error: Parquet error: x` without the second.
fn once(text: &str) -> &str {
    match text.split_once(": ") {
        Some((first, rest)) if rest.starts_with(first) && rest[first.len()..].starts_with(": ") => once(rest),
        _ => text,
    }
}
