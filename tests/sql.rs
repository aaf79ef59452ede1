//! What SQL promises, tested through SQL.

#[path = "sql/compare.rs"]
mod compare;
#[path = "sql/equivalence.rs"]
mod equivalence;
#[path = "sql/query.rs"]
mod query;
#[path = "sql/world.rs"]
mod world;
