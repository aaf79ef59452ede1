//! Printing rows: [`table`] for people, [`machine`] for programs, both to [`out`].
//!
//! `datafusion-cli` prints at most `--maxrows` rows in every format, cannot print a vector as CSV, and writes all
//! numbers of a vector into a table. So rows are printed here, and only what stands below them is its own.

pub(crate) mod machine;
pub(crate) mod out;
pub(crate) mod table;
