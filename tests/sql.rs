//! What SQL promises, tested through SQL.
#[path = "sql/equivalence.rs"]
mod equivalence;
