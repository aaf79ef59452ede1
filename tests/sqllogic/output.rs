//! Rows as text, the same on every machine and in every run.

use datafusion::arrow::array::{Array, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::Result;
use sqllogictest::{ColumnType, DBOutput};

/// The letter of a column in `query IRT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Boolean,
    Integer,
    Real,
    Text,
    Other,
    /// The shell did not tell.
    Unknown,
}

impl Column {
    /// The type of a column by its name in DESCRIBE.
    pub(crate) fn of_name(name: &str) -> Self {
        match name.parse::<DataType>() {
            Ok(data_type) => Self::from(&data_type),
            Err(_) => Self::Other,
        }
    }
}

/// Whether a query gave columns of the expected types, where they are known.
#[expect(clippy::ptr_arg, reason = "sqllogictest wants this signature")]
pub(crate) fn types_agree(found: &Vec<Column>, expected: &Vec<Column>) -> bool {
    found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, expected)| *found == Column::Unknown || found == expected)
}

/// CSV does not tell an empty text from NULL.
#[expect(clippy::ptr_arg, reason = "sqllogictest wants this signature")]
pub(crate) fn without_empty(line: &String) -> String {
    sqllogictest::default_normalizer(&line.replace("(empty)", "NULL"))
}

impl ColumnType for Column {
    fn from_char(letter: char) -> Option<Self> {
        Some(match letter {
            'B' => Self::Boolean,
            'I' => Self::Integer,
            'R' => Self::Real,
            'T' => Self::Text,
            '?' => Self::Other,
            _ => return None,
        })
    }

    fn to_char(&self) -> char {
        match self {
            Self::Boolean => 'B',
            Self::Integer => 'I',
            Self::Real => 'R',
            Self::Text => 'T',
            Self::Other | Self::Unknown => '?',
        }
    }
}

impl From<&DataType> for Column {
    fn from(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean,
            t if t.is_integer() => Self::Integer,
            t if t.is_floating() => Self::Real,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            _ => Self::Other,
        }
    }
}

/// Turns batches into text, hiding what differs between runs.
pub(crate) struct Output {
    /// The directory of the tables, shown as `<dir>`.
    dir: String,
}

impl Output {
    pub(crate) fn new(dir: String) -> Self {
        Self { dir }
    }

    pub(crate) fn rows(&self, schema: &Schema, batches: &[RecordBatch]) -> Result<DBOutput<Column>> {
        let types: Vec<Column> = schema
            .fields()
            .iter()
            .map(|f| Column::from(f.data_type()))
            .collect();
        let mut rows = Vec::new();
        for batch in batches {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| cell(column.as_ref(), row));
                rows.push(cells.collect::<Result<Vec<String>>>()?);
            }
        }
        if is_plan(schema) {
            return Ok(DBOutput::Rows {
                types,
                rows: self.plan_lines(&rows),
            });
        }
        for cell in rows.iter_mut().flatten() {
            *cell = self.mask(cell);
        }
        Ok(DBOutput::Rows { types, rows })
    }

    /// Rows as the shell printed them.
    pub(crate) fn printed(
        &self,
        header: &[String],
        types: Vec<Column>,
        mut rows: Vec<Vec<String>>,
    ) -> DBOutput<Column> {
        if header.iter().map(String::as_str).eq(PLAN) {
            let rows = self.plan_lines(&rows);
            return DBOutput::Rows { types, rows };
        }
        for row in &mut rows {
            for (cell, column) in row.iter_mut().zip(&types) {
                *cell = match cell.parse::<f64>() {
                    _ if cell.is_empty() => "NULL".to_owned(),
                    Ok(number) if *column == Column::Real => number.to_string(),
                    Ok(number) if *column == Column::Unknown && cell.contains('.') => number.to_string(),
                    _ => self.mask(cell),
                };
            }
        }
        DBOutput::Rows { types, rows }
    }

    /// A plan line by line: a record holds one line of text for each row. Indentation would be lost to
    /// the comparison, which ignores blanks, so it is drawn.
    fn plan_lines(&self, rows: &[Vec<String>]) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        for row in rows {
            let [kind, plan] = row.as_slice() else { continue };
            lines.push(vec![kind.clone()]);
            for line in plan.lines() {
                let text = line.trim_start();
                let drawn = "-".repeat(line.len() - text.len());
                lines.push(vec![mask_measures(&self.mask(&format!("{drawn}{text}")))]);
            }
        }
        lines
    }

    /// Object store paths lack the leading slash.
    fn mask(&self, text: &str) -> String {
        text.replace(&self.dir, "<dir>")
            .replace(self.dir.trim_start_matches('/'), "<dir>")
    }
}

/// The columns of EXPLAIN.
const PLAN: [&str; 2] = ["plan_type", "plan"];

fn is_plan(schema: &Schema) -> bool {
    schema.fields().iter().map(|f| f.name().as_str()).eq(PLAN)
}

/// One value. Floats are written with as many digits as tell them from every other float, so equal
/// text means equal bits.
fn cell(column: &dyn Array, row: usize) -> Result<String> {
    if column.is_null(row) {
        return Ok("NULL".to_owned());
    }
    let text = match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).to_string(),
        _ => {
            let options = FormatOptions::default().with_null("NULL");
            ArrayFormatter::try_new(column, &options)?
                .value(row)
                .try_to_string()?
        }
    };
    Ok(if text.is_empty() {
        "(empty)".to_owned()
    } else {
        text
    })
}

/// Replaces times and byte counts, `elapsed_compute=12.3µs` by `elapsed_compute=<time>`.
fn mask_measures(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    for word in line.split_inclusive([' ', ',', '[', ']']) {
        let end = word.trim_end_matches([' ', ',', '[', ']']).len();
        let (word, tail) = word.split_at(end);
        match word
            .split_once('=')
            .and_then(|(name, value)| Some((name, unit_of(value)?)))
        {
            Some((name, unit)) => masked.extend([name, "=", unit]),
            None => masked.push_str(word),
        }
        masked.push_str(tail);
    }
    masked
}

fn unit_of(value: &str) -> Option<&'static str> {
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    match (digits, &value[digits..]) {
        (0, _) => None,
        (_, "ns" | "µs" | "ms" | "s") => Some("<time>"),
        (_, "B" | "KB" | "MB" | "GB" | "KiB" | "MiB" | "GiB") => Some("<bytes>"),
        _ => None,
    }
}
