//! Vector search for Apache DataFusion over plain Parquet files.
pub mod id;
