//! The algorithm: hierarchical navigable small worlds (Malkov & Yashunin, arXiv 1603.09320).
//!
//! No I/O, no Arrow, no DataFusion. [`HnswBuilder`] takes vectors and gives an [`HnswIndex`]; the
//! `format` room writes it and searches the written bytes with the same loop.

mod build;
mod clusters;
mod config;
pub mod exact;
mod graph;
mod index;
mod kernels;
mod metric;
mod progress;
mod quantize;
mod row_set;
pub(crate) mod search;

pub use build::builder::HnswBuilder;
pub use config::{
    BuildError, DEFAULT_EF_CONSTRUCTION, DEFAULT_EF_SEARCH, DEFAULT_M, DEFAULT_SEED, EF_CONSTRUCTION_RANGE,
    HnswConfig, M_RANGE, MAX_CODE_DIM, MAX_DIM, MAX_ROWS, StoredVectors,
};
pub use graph::links::Damaged;
pub use index::HnswIndex;
pub use metric::{UnknownMetric, VectorMetric};
pub use progress::{BuildPhase, BuildProgress};
pub use row_set::RowSet;
pub use search::filtered::SearchWay;
pub use search::query::{Hit, SearchError, SearchOptions, SearchOutcome, SearchStats, distance_error};

/// What the `format` room reads and writes.
pub(crate) mod raw {
    pub(crate) use super::build::connectivity::reachable;
    pub(crate) use super::clusters::inverted_lists::{Cells, Groups};
    pub(crate) use super::graph::links::{Le32, Links, MAX_LEVELS, NodeRows, Parts, Vectors, vector_stride};
    pub(crate) use super::index::rows_of;
    pub(crate) use super::kernels::{CodeMetric, CodeRows, as_floats};
    pub(crate) use super::quantize::codebook::Codebook;
    pub(crate) use super::search::allowed_nodes::IndexId;
    pub(crate) use super::search::query::search;
    pub(crate) use super::search::range;
}
