//! Rows for programs: all of them, whole, and one batch after another as they come.

use std::io::Write;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::json::{ArrayWriter, LineDelimitedWriter};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::Result;
use datafusion_cli::print_format::PrintFormat;

/// A writer in one of the formats.
pub(crate) enum Machine<W: Write> {
    /// CSV and TSV.
    Separated {
        writer: Box<csv::Writer<W>>,
        schema: SchemaRef,
    },
    Json(ArrayWriter<W>),
    NdJson(LineDelimitedWriter<W>),
}

impl<W: Write> Machine<W> {
    /// Nothing is written yet. A result without columns, as that of SET, has nothing to write.
    pub(crate) fn new(out: W, format: PrintFormat, schema: &Schema) -> Self {
        match format {
            PrintFormat::Json => Self::Json(ArrayWriter::new(out)),
            PrintFormat::NdJson => Self::NdJson(LineDelimitedWriter::new(out)),
            format => {
                let delimiter = if format == PrintFormat::Tsv { b'\t' } else { b',' };
                Self::Separated {
                    writer: Box::new(csv::WriterBuilder::new().with_delimiter(delimiter).build(out)),
                    schema: flat(schema),
                }
            }
        }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch, options: &FormatOptions<'_>) -> Result<()> {
        match self {
            Self::Separated { writer, schema } => {
                let columns = batch.columns().iter().map(|column| flattened(column, options));
                let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
                writer.write(&RecordBatch::try_new(SchemaRef::clone(schema), columns)?)?;
            }
            Self::Json(writer) => writer.write(batch)?,
            Self::NdJson(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    /// Ends the output. One without rows has a header in CSV, and is an empty list in JSON.
    pub(crate) fn finish(self, rows: usize) -> Result<()> {
        match self {
            Self::Separated { mut writer, schema } => {
                if rows == 0 {
                    writer.write(&RecordBatch::new_empty(schema))?;
                }
                writer.into_inner().flush()?;
            }
            Self::Json(mut writer) => {
                writer.finish()?;
                let mut out = writer.into_inner();
                writeln!(out)?;
                out.flush()?;
            }
            Self::NdJson(mut writer) => {
                writer.finish()?;
                writer.into_inner().flush()?;
            }
        }
        Ok(())
    }
}

/// CSV has no lists or structs, so these are written as text.
fn flat(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        if field.data_type().is_nested() {
            Arc::new(Field::new(field.name(), DataType::Utf8, true))
        } else {
            Arc::new(field.as_ref().clone().with_nullable(true))
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn flattened(column: &ArrayRef, options: &FormatOptions<'_>) -> Result<ArrayRef> {
    if !column.data_type().is_nested() {
        return Ok(Arc::clone(column));
    }
    let formatter = ArrayFormatter::try_new(column.as_ref(), options)?;
    let mut texts = StringBuilder::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
        } else {
            texts.append_value(formatter.value(row).try_to_string()?);
        }
    }
    Ok(Arc::new(texts.finish()))
}
