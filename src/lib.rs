//! Vector search for Apache DataFusion over plain Parquet files.
pub mod format;
pub mod hnsw;
pub mod id;
pub mod loader;
