//! The Parquet end: vectors out of a file, filters to bitmaps, row selections in.
//!
//! This room reads; it knows nothing of graphs, sidecars or SQL. It uses DataFusion's Parquet scan
//! (and therefore its error type) rather than a reader of its own, so that schema evolution,
//! partition columns, type adaptation, pruning and predicates mean here what they mean in any
//! other DataFusion scan.

pub(crate) mod columns;
pub(crate) mod filter;
pub(crate) mod footer;
pub(crate) mod kept_vectors;
pub(crate) mod memory;
pub(crate) mod pause;
pub(crate) mod reader;
pub(crate) mod scan;
pub(crate) mod source_file;
pub(crate) mod vectors;
mod version;
