//! The algorithm: hierarchical navigable small worlds (Malkov & Yashunin, arXiv 1603.09320).
//!
//! No I/O, no Arrow, no DataFusion. [`HnswBuilder`] takes vectors and gives an [`HnswIndex`]; the
//! `format` room writes it and searches the written bytes with the same loop.

mod assemble;
mod build;
mod builder;
mod cells;
mod cluster;
mod config;
mod cost;
mod decide;
mod entries;
pub mod exact;
mod filter;
mod fold;
mod graph;
mod index;
mod kernels;
mod levels;
mod listed;
mod look;
mod metric;
mod nearest;
mod nodebits;
mod order;
mod plan;
mod pool;
mod progress;
mod quantize;
mod query;
pub(crate) mod range;
mod repair;
mod rounding;
mod rowset;
mod search;
mod select;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod simd;
mod spaces;

pub use builder::HnswBuilder;
pub use config::{
    BuildError, DEFAULT_EF_CONSTRUCTION, DEFAULT_EF_SEARCH, DEFAULT_M, DEFAULT_SEED, EF_CONSTRUCTION_RANGE,
    HnswConfig, M_RANGE, MAX_CODE_DIM, MAX_DIM, MAX_ROWS, StoredVectors,
};
pub use filter::SearchWay;
pub use graph::Damaged;
pub use index::HnswIndex;
pub use metric::{UnknownMetric, VectorMetric};
pub use progress::{BuildPhase, BuildProgress};
pub use query::{Hit, SearchError, SearchOptions, SearchOutcome, SearchStats, distance_error};
pub use rowset::RowSet;

/// What the `format` room reads and writes.
pub(crate) mod raw {
    pub(crate) use super::cells::{Cells, Groups};
    pub(crate) use super::graph::{Le32, Links, MAX_LEVELS, NodeRows, Parts, Vectors, vector_stride};
    pub(crate) use super::index::rows_of;
    pub(crate) use super::kernels::{CodeMetric, CodeRows, as_floats};
    pub(crate) use super::nodebits::IndexId;
    pub(crate) use super::quantize::Codebook;
    pub(crate) use super::query::search;
    pub(crate) use super::range;
    pub(crate) use super::repair::reachable;
}
