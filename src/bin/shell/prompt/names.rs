//! What a word at the prompt may become: keywords, tables, columns, functions and settings.

use std::collections::BTreeSet;

use datafusion::prelude::SessionContext;

/// The words that statements here are written with; SQL has hundreds more that nobody types.
const KEYWORDS: &[&str] = &[
    "ALL",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COPY",
    "CREATE",
    "CROSS",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "FALSE",
    "FILTER",
    "FIRST",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IF",
    "IN",
    "INDEX",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OPTIONS",
    "OR",
    "ORDER",
    "OVER",
    "PARQUET",
    "PARTITION",
    "PARTITIONED",
    "PREPARE",
    "QUALIFY",
    "RESET",
    "RIGHT",
    "SELECT",
    "SET",
    "SHOW",
    "STORED",
    "TABLE",
    "TABLES",
    "THEN",
    "TO",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "VERBOSE",
    "VIEW",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Behind these words stands a table.
const BEFORE_TABLES: &[&str] = &[
    "FROM", "JOIN", "INTO", "TABLE", "VIEW", "DESCRIBE", "UPDATE", "COPY",
];

/// Of larger catalogs the columns are not asked for: a prompt is to come at once.
const MOST_TABLES: usize = 500;

/// What there is in a session.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The tables and their columns.
    pub(crate) tables: Vec<(String, Vec<String>)>,
    pub(crate) functions: BTreeSet<String>,
    /// Functions that stand in the place of a table.
    pub(crate) table_functions: BTreeSet<String>,
    pub(crate) settings: BTreeSet<String>,
}

impl Names {
    /// Those of the session's default catalog. A table that cannot be opened has no columns.
    pub(crate) async fn of(ctx: &SessionContext) -> Self {
        let state = ctx.state();
        let options = state.config_options();
        let mut names = Self {
            settings: options.entries().into_iter().map(|entry| entry.key).collect(),
            table_functions: state.table_functions().keys().cloned().collect(),
            ..Self::default()
        };
        names.functions.extend(state.scalar_functions().keys().cloned());
        names
            .functions
            .extend(state.aggregate_functions().keys().cloned());
        names.functions.extend(state.window_functions().keys().cloned());
        let Some(catalog) = ctx.catalog(&options.catalog.default_catalog) else {
            return names;
        };
        for schema_name in catalog.schema_names() {
            let Some(schema) = catalog.schema(&schema_name) else {
                continue;
            };
            for table in schema.table_names() {
                let name = if schema_name == options.catalog.default_schema {
                    quoted(&table)
                } else {
                    format!("{}.{}", quoted(&schema_name), quoted(&table))
                };
                let mut columns = Vec::new();
                if schema_name != "information_schema"
                    && names.tables.len() < MOST_TABLES
                    && let Ok(Some(provider)) = schema.table(&table).await
                {
                    columns.extend(
                        provider
                            .schema()
                            .fields()
                            .iter()
                            .map(|field| quoted(field.name())),
                    );
                }
                names.tables.push((name, columns));
            }
        }
        names
    }

    /// Where the word begins that ends at `end` of `text`, and what it may become.
    pub(crate) fn complete(&self, text: &str, end: usize) -> (usize, Vec<String>) {
        let before = &text[..end];
        if in_string_or_comment(before) {
            return (end, vec![]);
        }
        let statement = before.rsplit(';').next().unwrap_or_default();
        let start = before
            .rfind(|c: char| !is_of_word(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[start..];
        if word.is_empty() {
            return (end, vec![]);
        }
        let earlier: Vec<&str> =
            words(&statement[..statement.len() - word.len().min(statement.len())]).collect();
        let is = |at: Option<&&str>, one_of: &[&str]| {
            at.is_some_and(|found| one_of.iter().any(|word| word.eq_ignore_ascii_case(found)))
        };
        if earlier.len() == 1 && is(earlier.first(), &["SET", "RESET", "SHOW"]) {
            let settings = self.settings.iter().filter(|name| begins(name, word));
            return (start, settings.cloned().collect());
        }
        if let Some((table, column)) = word.rsplit_once('.')
            && let Some(columns) = self.columns_of(table, text)
        {
            let columns = columns.iter().filter(|name| begins(name, column));
            return (start, columns.map(|name| format!("{table}.{name}")).collect());
        }

        let mut found = Found {
            word,
            names: Vec::new(),
        };
        if is(earlier.last(), BEFORE_TABLES) {
            found.add(self.tables.iter().map(|(name, _)| name.clone()));
            found.add(self.table_functions.iter().map(|name| format!("{name}(")));
        } else {
            found.add(self.columns_in(text));
            found.add(self.functions.iter().map(|name| format!("{name}(")));
            found.add(self.tables.iter().map(|(name, _)| name.clone()));
        }
        let lower = word.starts_with(|c: char| c.is_lowercase());
        found.add(KEYWORDS.iter().map(|keyword| {
            if lower {
                keyword.to_lowercase()
            } else {
                (*keyword).to_owned()
            }
        }));
        (start, found.names)
    }

    /// The columns of a table, by its name or by the alias that the text gives it.
    fn columns_of(&self, name: &str, text: &str) -> Option<&[String]> {
        let of = |name: &str| {
            self.tables
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let mut table = of(name);
        let all: Vec<&str> = words(text).collect();
        for (at, word) in all.iter().enumerate() {
            let behind = all[at + 1..].iter().find(|word| !word.eq_ignore_ascii_case("AS"));
            if table.is_none() && behind.is_some_and(|alias| alias.eq_ignore_ascii_case(name)) {
                table = of(word);
            }
        }
        table.map(|(_, columns)| columns.as_slice())
    }

    /// The columns of the tables that the text names; of all if it names none yet.
    fn columns_in(&self, text: &str) -> BTreeSet<String> {
        let named = |name: &str| words(text).any(|word| word.eq_ignore_ascii_case(name));
        let any = self.tables.iter().any(|(name, _)| named(name));
        let tables = self.tables.iter().filter(|(name, _)| !any || named(name));
        tables.flat_map(|(_, columns)| columns.iter().cloned()).collect()
    }
}

struct Found<'a> {
    word: &'a str,
    names: Vec<String>,
}

impl Found<'_> {
    fn add(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if begins(&name, self.word) && !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}

/// Whether a name begins with what was typed, in either case; the quote of a name may be left out.
fn begins(name: &str, typed: &str) -> bool {
    let begins = |name: &str| {
        name.get(..typed.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(typed))
    };
    begins(name) || name.strip_prefix('"').is_some_and(begins)
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '"')
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_of_word(c))
        .filter(|word| !word.is_empty())
}

fn in_string_or_comment(before: &str) -> bool {
    let (mut string, mut comment) = (false, false);
    for (at, c) in before.char_indices() {
        match c {
            '\n' => comment = false,
            '\'' if !comment => string = !string,
            '-' if !string && before[at..].starts_with("--") => comment = true,
            _ => {}
        }
    }
    string || comment
}

/// The name as it is written in SQL.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}
