//! Table functions and scalar functions.
//!
//! [`register`] names them all.

pub mod distance_aliases;
pub(crate) mod register;
pub(crate) mod vector_join;
pub(crate) mod vector_search;
