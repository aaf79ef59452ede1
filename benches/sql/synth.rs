//! The generated set of the engine's benchmark as Parquet files, with columns like those of the packages.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::parquet::arrow::ArrowWriter;

#[path = "../engine/data.rs"]
mod data;

/// Writes the rows and the queries, and says where.
pub(crate) fn write(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let set = data::load("synth")?;
    println!(
        "{}: {} rows made for {}, searched by cosine here; {}",
        set.name,
        set.rows(),
        set.metric,
        data::folder().display()
    );
    let file = |name: &str, vectors: &[f32]| {
        let path = dir.join(name);
        table(&path, vectors, set.dim).map(|()| path)
    };
    let queries = set.queries.len().min(250 * set.dim);
    Ok((
        file("rows.parquet", &set.base)?,
        file("queries.parquet", &set.queries[..queries])?,
    ))
}

fn table(path: &Path, vectors: &[f32], dim: usize) -> Result<()> {
    let rows = i64::try_from(vectors.len() / dim).expect("few rows");
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let numbers = Arc::new(Float32Array::from(vectors.to_vec()));
    let width = i32::try_from(dim).expect("a small dimension");
    let text = |word: &str| (0..rows).map(|id| format!("{word} {id}")).collect::<Vec<_>>();
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..rows))),
        ("package", Arc::new(StringArray::from(text("package")))),
        (
            "description",
            Arc::new(StringArray::from(text("a description of"))),
        ),
        (
            "installed_size",
            Arc::new(Int64Array::from_iter_values(
                (0..rows).map(|id| id * 7_919 % rows),
            )),
        ),
        (
            "embedding",
            Arc::new(FixedSizeListArray::try_new(item, width, numbers, None)?),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}
