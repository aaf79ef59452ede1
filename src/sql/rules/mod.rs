//! What [`register`](crate::register) adds to DataFusion's planner: the list to read before an upgrade of DataFusion.
//!
//! In the order in which they run: [`fold_array_literal`] and [`vector_operators`] while SQL is planned, [`create_index`],
//! [`widen_lists`] and [`bind_query`] as analyzer rules, [`ranked_join`], [`knn`] (with [`point_lookup`] for the subqueries
//! of a search) and [`say_unsearched`] as optimizer rules, [`seal_search`] around the physical rules. Each of them but
//! [`create_index`], whose errors are the statement's, takes its step under a [`guard`].

pub(crate) mod bind_query;
pub(crate) mod create_index;
pub mod fold_array_literal;
pub(crate) mod guard;
pub(crate) mod knn;
pub(crate) mod point_lookup;
pub(crate) mod ranked_join;
pub(crate) mod say_unsearched;
pub(crate) mod seal_search;
pub(crate) mod vector_operators;
pub(crate) mod widen_lists;
