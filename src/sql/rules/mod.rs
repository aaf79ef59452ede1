//! What [`register`](crate::register) adds to DataFusion's planner: the list to read before an upgrade of DataFusion.
//!
//! In the order in which they run: [`fold_array_literal`] while SQL is planned, [`create_index`] and [`bind_query`] as
//! analyzer rules, [`ranked_join`], [`knn`] and [`say_unsearched`] as optimizer rules, [`seal_search`] around the
//! physical rules. Each of them but [`create_index`], whose errors are the statement's, takes its step under a [`guard`].

pub(crate) mod bind_query;
pub(crate) mod create_index;
pub mod fold_array_literal;
pub(crate) mod guard;
pub(crate) mod knn;
pub(crate) mod ranked_join;
pub(crate) mod say_unsearched;
pub(crate) mod seal_search;
