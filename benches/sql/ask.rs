//! Asking, and reading what comes.

use std::collections::HashSet;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt;

pub(crate) fn parameter(query: &[f32]) -> ScalarValue {
    let values: Vec<_> = query.iter().map(|&x| ScalarValue::Float32(Some(x))).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float32))
}

pub(crate) async fn run(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    let frame = ctx.hnsw_sql(sql).await?;
    Box::pin(frame.collect()).await
}

pub(crate) fn ids(batches: &[RecordBatch]) -> HashSet<i64> {
    batches
        .iter()
        .flat_map(|b| {
            b.column_by_name("id")
                .into_iter()
                .flat_map(|c| c.as_primitive::<Int64Type>().values().to_vec())
        })
        .collect()
}

pub(crate) fn vectors_of(batch: &RecordBatch) -> Vec<Vec<f32>> {
    let lists = batch.column(0).as_fixed_size_list();
    (0..lists.len())
        .map(|row| lists.value(row).as_primitive::<Float32Type>().values().to_vec())
        .collect()
}
