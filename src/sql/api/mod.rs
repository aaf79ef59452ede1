//! Searches and builds without SQL, for programs.

pub(crate) mod index_builder;
pub(crate) mod search_report;
pub(crate) mod vector_table;
