//! The line editor's helper: when a statement is complete, what a word may become, and colours.

pub(crate) mod names;

use std::borrow::Cow;

use datafusion::config::Dialect;
use datafusion::sql::sqlparser::dialect::dialect_from_str;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_cli::helper::CliHelper;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Result};

use self::names::Names;

/// `datafusion-cli`'s helper, which completes file names, with the names of the session.
pub(crate) struct PromptHelper {
    inner: CliHelper,
    dialect: Dialect,
    pub(crate) names: Names,
}

impl PromptHelper {
    pub(crate) fn new(dialect: Dialect, color: bool) -> Self {
        Self {
            inner: CliHelper::new(&dialect, color),
            dialect,
            names: Names::default(),
        }
    }

    pub(crate) fn set_dialect(&mut self, dialect: Dialect) {
        self.dialect = dialect;
        self.inner.set_dialect(&dialect);
    }

    pub(crate) fn reset_hint(&self) {
        self.inner.reset_hint();
    }
}

/// Whether a text is to be run: it is a `\` command, or ends with the semicolon of a statement.
pub(crate) fn is_complete(text: &str, dialect: Dialect) -> bool {
    let text = text.trim_end();
    if text.starts_with('\\') {
        return true;
    }
    if !text.ends_with(';') {
        return false;
    }
    let Some(dialect) = dialect_from_str(dialect) else {
        return true;
    };
    match Tokenizer::new(dialect.as_ref(), text).tokenize() {
        // The semicolon may be that of a comment.
        Ok(tokens) => tokens.last() == Some(&Token::SemiColon),
        // Or of a string that goes on. Any other error is told when the text runs.
        Err(error) => !(error.message.contains("Unterminated") || error.message.contains("EOF")),
    }
}

impl Completer for PromptHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, context: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let (start, files) = self.inner.complete(line, at, context)?;
        if !files.is_empty() {
            return Ok((start, files));
        }
        let (start, names) = self.names.complete(line, at);
        let pair = |name: String| Pair {
            display: name.clone(),
            replacement: name,
        };
        Ok((start, names.into_iter().map(pair).collect()))
    }
}

impl Validator for PromptHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        self.inner.reset_hint();
        Ok(if is_complete(context.input(), self.dialect) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Highlighter for PromptHelper {
    fn highlight<'l>(&self, line: &'l str, at: usize) -> Cow<'l, str> {
        self.inner.highlight(line, at)
    }

    fn highlight_char(&self, line: &str, at: usize, kind: CmdKind) -> bool {
        self.inner.highlight_char(line, at, kind)
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        self.inner.highlight_hint(hint)
    }
}

impl Hinter for PromptHelper {
    type Hint = String;

    fn hint(&self, line: &str, at: usize, context: &Context<'_>) -> Option<String> {
        self.inner.hint(line, at, context)
    }
}

impl Helper for PromptHelper {}
