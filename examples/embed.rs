//! Vector search inside a program of one's own: register the extension on a session, then use SQL.
//!
//! ```text
//! cargo run --release --example embed                                     # the example data
//! cargo run --release --example embed -- FILE.parquet COLUMN              # a file of yours
//! ```

use datafusion::arrow::array::AsArray;
use datafusion::error::Result;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion_hnsw::HnswSessionExt as _;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments
        .next()
        .unwrap_or_else(|| "examples/data/packages.parquet".to_owned());
    let column = arguments.next().unwrap_or_else(|| "embedding".to_owned());

    let ctx = SessionContext::new();
    datafusion_hnsw::register(&ctx)?;
    ctx.register_parquet("docs", &file, ParquetReadOptions::default())
        .await?;

    // Builds the sidecar file; does nothing if it is there and still fits.
    ctx.hnsw_sql(&format!(
        "CREATE INDEX IF NOT EXISTS docs_idx ON docs USING hnsw (\"{column}\")"
    ))
    .await?
    .show()
    .await?;

    // The query vector would come from an embedding model; here it is that of the first row.
    let first = ctx
        .hnsw_sql(&format!("SELECT \"{column}\" FROM docs LIMIT 1"))
        .await?
        .collect()
        .await?;
    let query = ScalarValue::try_from_array(first[0].column(0), 0)?;

    // Passed as a parameter, the vector is not parsed as text.
    let sql = format!(
        "SELECT *, cosine_distance(\"{column}\", $1) AS distance FROM docs ORDER BY distance LIMIT 5"
    );
    let batches = ctx
        .hnsw_sql(&sql)
        .await?
        .with_param_values(vec![query])?
        .collect()
        .await?;
    for batch in &batches {
        let distances = batch
            .column_by_name("distance")
            .expect("it was selected")
            .as_primitive::<datafusion::arrow::datatypes::Float64Type>();
        for row in 0..batch.num_rows() {
            println!("{:.3}  {}", distances.value(row), first_text(batch, row)?);
        }
    }
    Ok(())
}

/// The first column of text, to recognise a row by.
fn first_text(batch: &datafusion::arrow::array::RecordBatch, row: usize) -> Result<String> {
    for column in batch.columns() {
        if let ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) =
            ScalarValue::try_from_array(column, row)?
        {
            return Ok(text);
        }
    }
    Ok(format!("row {row}"))
}
