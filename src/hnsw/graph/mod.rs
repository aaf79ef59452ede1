//! Neighbor lists, and the one beam search over them.
//!
//! In reading order: [`links`], [`vectors`] and [`node_rows`] are a graph as bytes and [`owned`] is one in
//! memory; [`distance_computer`] compares a query with nodes; [`candidate_list`] keeps the nearest nodes found,
//! [`visited`] those met, [`node_filter`] says which are allowed; [`search_layer`] is the beam search;
//! [`reachable`] follows all links.

pub(crate) mod candidate_list;
pub(crate) mod distance_computer;
pub(crate) mod links;
pub(crate) mod node_filter;
pub(crate) mod node_rows;
pub(crate) mod owned;
pub(crate) mod reachable;
pub(crate) mod search_layer;
pub(crate) mod vectors;
pub(crate) mod visited;
