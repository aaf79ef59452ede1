//! Names as the session reads them.

use datafusion::common::{Result, plan_err};
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};

/// How identifiers become names: unquoted ones in lower case, unless the session says otherwise.
pub(crate) struct Names {
    pub(crate) lower_case: bool,
}

impl Names {
    pub(crate) fn exact(&self, ident: &Ident) -> String {
        if ident.quote_style.is_none() && self.lower_case {
            ident.value.to_lowercase()
        } else {
            ident.value.clone()
        }
    }

    /// A table as the text of a reference, whose quotes keep the names as they are.
    pub(crate) fn table(&self, table: &ObjectName) -> String {
        let part = |ident: &Ident| {
            let name = self.exact(ident);
            let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if plain {
                name
            } else {
                format!("\"{}\"", name.replace('"', "\"\""))
            }
        };
        let parts = table.0.iter().map(|piece| match piece.as_ident() {
            Some(ident) => part(ident),
            None => piece.to_string(),
        });
        parts.collect::<Vec<_>>().join(".")
    }

    pub(crate) fn index(&self, name: &ObjectName, function: &str) -> Result<String> {
        match name.0.as_slice() {
            [piece] if piece.as_ident().is_some() => Ok(piece
                .as_ident()
                .map(|ident| self.exact(ident))
                .unwrap_or_default()),
            _ => plan_err!("{function}: an index has a plain name, not {name}; say ON <table> for its table"),
        }
    }
}
