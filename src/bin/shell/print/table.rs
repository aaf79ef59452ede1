//! Rows as a table: so many rows, and of a vector its first numbers.

use std::fmt;
use std::io::Write;

use datafusion::arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{
    ArrayFormatter, ArrayFormatterFactory, DisplayIndex, FormatOptions, FormatResult,
};
use datafusion::arrow::util::pretty::pretty_format_batches_with_options;
use datafusion::error::Result;

/// Vectors of more numbers than this are shortened.
const WHOLE: usize = 8;

/// So many numbers of a longer one are shown.
const SHOWN: usize = 2;

/// Prints the first `most` of `rows` rows, of which at least those are in `batches`.
pub(crate) fn print(
    out: &mut impl Write,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    rows: usize,
    most: usize,
    options: &FormatOptions<'_>,
) -> Result<()> {
    if schema.fields().is_empty() || (most == 0 && rows > 0) {
        return Ok(());
    }
    let mut left = most;
    let mut shown = Vec::new();
    for batch in batches {
        let batch = batch.slice(0, left.min(batch.num_rows()));
        left -= batch.num_rows();
        shown.push(batch);
    }
    if shown.is_empty() {
        shown.push(RecordBatch::new_empty(SchemaRef::clone(schema)));
    }
    let options = options.clone().with_formatter_factory(Some(&ShortVectors));
    let table = pretty_format_batches_with_options(&shown, &options)?.to_string();
    match table.rsplit_once('\n') {
        Some((above, border)) if rows > most => {
            let dots = format!("| .{}|", " ".repeat(border.len().saturating_sub(4)));
            writeln!(out, "{above}\n{dots}\n{dots}\n{dots}\n{border}")?;
        }
        _ => writeln!(out, "{table}")?,
    }
    Ok(())
}

/// Shortens vectors, which are lists of floats, wherever they stand: `[0.12, -0.03, ... 384 numbers]`.
#[derive(Debug)]
struct ShortVectors;

impl ArrayFormatterFactory for ShortVectors {
    fn create_array_formatter<'formatter>(
        &self,
        array: &'formatter dyn Array,
        options: &FormatOptions<'formatter>,
        _field: Option<&'formatter Field>,
    ) -> std::result::Result<Option<ArrayFormatter<'formatter>>, ArrowError> {
        let item = match array.data_type() {
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => item,
            _ => return Ok(None),
        };
        if !item.data_type().is_floating() {
            return Ok(None);
        }
        let vectors = Vectors {
            array,
            whole: ArrayFormatter::try_new(array, options)?,
            options: options.clone(),
        };
        Ok(Some(ArrayFormatter::new(Box::new(vectors), options.safe())))
    }
}

struct Vectors<'a> {
    array: &'a dyn Array,
    whole: ArrayFormatter<'a>,
    options: FormatOptions<'a>,
}

impl Vectors<'_> {
    fn vector(&self, row: usize) -> Option<ArrayRef> {
        if self.array.is_null(row) {
            return None;
        }
        Some(match self.array.data_type() {
            DataType::List(_) => self.array.as_list::<i32>().value(row),
            DataType::LargeList(_) => self.array.as_list::<i64>().value(row),
            DataType::ListView(_) => self.array.as_list_view::<i32>().value(row),
            DataType::LargeListView(_) => self.array.as_list_view::<i64>().value(row),
            DataType::FixedSizeList(..) => self.array.as_fixed_size_list().value(row),
            _ => return None,
        })
    }
}

impl DisplayIndex for Vectors<'_> {
    fn write(&self, row: usize, out: &mut dyn fmt::Write) -> FormatResult {
        match self.vector(row) {
            Some(vector) if vector.len() > WHOLE => {
                let numbers = ArrayFormatter::try_new(vector.as_ref(), &self.options)?;
                out.write_char('[')?;
                for place in 0..SHOWN {
                    write!(out, "{}, ", numbers.value(place))?;
                }
                Ok(write!(out, "... {} numbers]", vector.len())?)
            }
            _ => Ok(write!(out, "{}", self.whole.value(row))?),
        }
    }
}
