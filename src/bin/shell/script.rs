//! Statements from a file or an argument, run one after another until one fails.

use std::path::Path;

use anyhow::Context as _;
use datafusion::sql::sqlparser::dialect::{Dialect, dialect_from_str};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::session::Session;

/// Runs the statements of a file.
pub(crate) async fn run_file(session: &Session, file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    // A script may begin with `#!/usr/bin/env datafusion-hnsw -f`.
    let text = if text.starts_with("#!") {
        format!("--{text}")
    } else {
        text
    };
    run_text(session, &file.display().to_string(), &text).await
}

/// Runs the statements in `text`; an error names `origin` and the line where the statement begins.
pub(crate) async fn run_text(session: &Session, origin: &str, text: &str) -> anyhow::Result<()> {
    let dialect = session_dialect(session)?;
    for statement in split(text, dialect.as_ref()).with_context(|| origin.to_owned())? {
        session
            .run(statement.sql)
            .await
            .with_context(|| format!("{origin}:{}", statement.line))?;
    }
    Ok(())
}

/// The dialect that `SET datafusion.sql_parser.dialect` chose.
pub(crate) fn session_dialect(session: &Session) -> anyhow::Result<Box<dyn Dialect>> {
    let state = session.ctx.state();
    let name = state.config().options().sql_parser.dialect;
    dialect_from_str(name).with_context(|| format!("unknown SQL dialect {name}"))
}

/// One statement of a text, without its semicolon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    pub(crate) sql: &'a str,
    /// The line of its first word, counted from 1.
    pub(crate) line: u64,
}

/// Splits a text at the semicolons that end statements: not those in strings or comments.
pub(crate) fn split<'a>(text: &'a str, dialect: &dyn Dialect) -> anyhow::Result<Vec<Statement<'a>>> {
    let tokens = Tokenizer::new(dialect, text).tokenize_with_location()?;
    let places = Places::new(text);
    let mut statements = Vec::new();
    let mut begin = None;
    for token in &tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => {
                if let Some(start) = begin.take() {
                    statements.push(places.statement(start, places.byte(token.span.start)));
                }
            }
            _ => begin = begin.or(Some(token.span.start)),
        }
    }
    if let Some(start) = begin {
        statements.push(places.statement(start, text.len()));
    }
    Ok(statements)
}

/// Where lines begin, to turn the tokenizer's line and column (in characters) into bytes.
struct Places<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(i, _)| i + 1))
            .collect();
        Self { text, lines }
    }

    fn byte(&self, at: datafusion::sql::sqlparser::tokenizer::Location) -> usize {
        let index = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(&line) = self.lines.get(index(at.line)) else {
            return self.text.len();
        };
        let rest = &self.text[line..];
        rest.char_indices()
            .nth(index(at.column))
            .map_or(self.text.len(), |(i, _)| line + i)
    }

    fn statement(&self, from: datafusion::sql::sqlparser::tokenizer::Location, to: usize) -> Statement<'a> {
        Statement {
            sql: self.text[self.byte(from)..to].trim_end(),
            line: from.line,
        }
    }
}
