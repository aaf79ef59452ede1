//! Vector search for Apache DataFusion over plain Parquet files.
//!
//! ```text
//! BUILD   Parquet file --rows--> vectors --hnsw--> graph --format--> bytes --sidecar--> sidecar file
//! QUERY   SQL --sql--> k-NN request --sidecar/format/hnsw--> RowIds --rows--> row selection --DataFusion--> Arrow batches
//! ```

pub mod format;
pub mod hnsw;
pub mod id;
pub mod loader;

#[cfg(feature = "datafusion")]
mod create;
#[cfg(feature = "datafusion")]
mod rows;
#[cfg(feature = "store")]
pub mod sidecar;
#[cfg(feature = "datafusion")]
pub mod sql;
#[cfg(feature = "store")]
mod stamp;

#[cfg(feature = "datafusion")]
pub use create::{IndexPhase, IndexProgress, ProgressFn};
#[cfg(feature = "datafusion")]
pub use sql::{
    HnswOptions, HnswSessionExt, IndexBuilder, IndexSummary, KnnOptions, Mode, Refusal, VectorTable,
    on_index_progress, register,
};

/// The example of the README, compiled and run as a test.
#[cfg(all(doctest, feature = "datafusion"))]
#[doc = include_str!("../README.md")]
struct Readme;
