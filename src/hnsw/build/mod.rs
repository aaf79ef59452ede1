//! From vectors to a graph.
//!
//! In reading order: [`builder`] takes rows and runs the steps, [`duplicates`] gives identical vectors one node,
//! [`node_order`] numbers nodes so that near ones lie near each other, [`levels`] draws the highest layer of each
//! node, [`insert`] links nodes (Algorithm 1), [`select_neighbors`] picks neighbors (Algorithm 4),
//! [`connectivity`] links nodes that cannot be reached, [`row_map`] notes where rows end up, [`assemble`] puts
//! the parts together.

pub(crate) mod assemble;
pub(crate) mod builder;
pub(crate) mod connectivity;
pub(crate) mod duplicates;
pub(crate) mod insert;
pub(crate) mod levels;
pub(crate) mod node_order;
pub(crate) mod row_map;
pub(crate) mod select_neighbors;
