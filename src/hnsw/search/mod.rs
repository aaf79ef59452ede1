//! From a request to hits.
//!
//! In reading order: [`query`] is the request and its steps, [`rerank`] decides candidates by their vectors, [`filtered`]
//! searches among allowed rows only, with [`cost_model`], [`probe`], [`probe_budget`], [`allowed_nodes`] and
//! [`allowed_by_cluster`]; [`range`] finds all rows within a distance.

pub(crate) mod allowed_nodes;
pub(crate) mod beam_search;
pub(crate) mod context;
pub(crate) mod cost_model;
pub(crate) mod filtered;
pub(crate) mod options;
pub(crate) mod prepare;
pub(crate) mod probe;
pub(crate) mod probe_budget;
pub(crate) mod query;
pub(crate) mod range;
pub(crate) mod rerank;
