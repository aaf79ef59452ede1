//! The algorithm: hierarchical navigable small worlds (Malkov & Yashunin, arXiv 1603.09320).
//!
//! No I/O, no Arrow, no DataFusion. [`HnswBuilder`] takes vectors and gives an [`HnswIndex`]; the
//! `format` room writes it and searches the written bytes with the same loop.

mod build;
mod clusters;
mod config;
mod error;
pub mod exact;
mod graph;
mod ids;
mod index;
mod kernels;
mod metric;
mod node_memory;
mod parts;
mod progress;
mod quantize;
mod query_vector;
mod row_set;
pub(crate) mod search;

pub use build::builder::HnswBuilder;
pub use config::{
    BuildError, DEFAULT_EF_CONSTRUCTION, DEFAULT_EF_SEARCH, DEFAULT_M, DEFAULT_SEED, EF_CONSTRUCTION_RANGE,
    HnswConfig, M_RANGE, MAX_CODE_DIM, MAX_DIM, MAX_ROWS, StoredVectors,
};
pub use error::{Damaged, SearchError};
pub use index::HnswIndex;
pub use metric::{UnknownMetric, VectorMetric};
pub use progress::{BuildPhase, BuildProgress};
pub use query_vector::distance_error;
pub use row_set::RowSet;
pub use search::options::{Hit, SearchOptions, SearchOutcome, SearchStats, SearchStrategy};

/// What the `format` room reads and writes.
pub(crate) mod raw {
    pub(crate) use super::clusters::inverted_lists::{Clusters, Groups};
    pub(crate) use super::graph::links::Links;
    pub(crate) use super::graph::node_rows::NodeRows;
    pub(crate) use super::graph::reachable::reachable;
    pub(crate) use super::graph::vectors::{Vectors, vector_stride};
    pub(crate) use super::ids::{IndexId, Le32, MAX_LEVELS};
    pub(crate) use super::index::rows_of;
    pub(crate) use super::kernels::{CodeMetric, CodeRows, as_floats};
    pub(crate) use super::parts::Parts;
    pub(crate) use super::quantize::codebook::Codebook;
    pub(crate) use super::search::query::search;
    pub(crate) use super::search::range;
}
