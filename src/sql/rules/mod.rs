//! What [`register`](crate::register) adds to DataFusion's planner: the list to read before an upgrade of DataFusion.
//!
//! In the order in which they run: [`fold_array_literal`] and [`vector_operators`] while SQL is planned, [`create_index`] and [`bind_query`] as
//! analyzer rules, [`ranked_join`] and [`knn`] as optimizer rules, [`seal_search`] around the physical rules.

pub(crate) mod bind_query;
pub(crate) mod create_index;
pub mod fold_array_literal;
pub(crate) mod knn;
pub(crate) mod ranked_join;
pub(crate) mod seal_search;
pub(crate) mod vector_operators;
