//! Statements about indexes: building, dropping, refreshing, listing and verifying them.
//!
//! In reading order: [`statement`] parses what DataFusion's planner drops, [`option_list`] reads `WITH (...)` and options
//! strings, [`command`] makes a statement a table, [`tables`] finds tables by name and [`targets`] their files, and each of the
//! others is one statement.

pub(crate) mod command;
pub(crate) mod create_index;
pub(crate) mod drop_index;
pub(crate) mod indexes;
pub mod option_list;
pub(crate) mod refresh;
pub mod statement;
pub(crate) mod tables;
pub(crate) mod targets;
