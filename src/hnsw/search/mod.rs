//! From a request to hits.
//!
//! In reading order: [`options`] is what is asked and answered; [`query`] has the steps; [`prepare`] and
//! [`beam_search`] find candidates; [`rerank`] decides among them by their vectors. Under a filter, [`filtered`]
//! chooses a strategy by [`cost_model`], [`allowed_nodes`] knows which nodes are allowed, [`probe`] looks through
//! clusters within its [`probe_budget`]. [`range`] finds all rows within a distance; [`context`] is memory that
//! searches reuse.

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
