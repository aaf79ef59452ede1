//! Neighbor lists, and the one beam search over them.
//!
//! In reading order: [`links`] is the graph as bytes, [`distance_computer`] compares a query with nodes,
//! [`candidate_list`] keeps the nearest nodes so far, [`search_layer`] is the beam search, [`entry_points`] says where it
//! begins on layer 0.

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
