//! What SQL promises, tested through SQL.

#[path = "sql/advice.rs"]
mod advice;
#[path = "sql/api.rs"]
mod api;
#[path = "sql/compare.rs"]
mod compare;
#[path = "sql/equivalence.rs"]
mod equivalence;
#[path = "sql/join.rs"]
mod join;
#[path = "sql/lookup.rs"]
mod lookup;
#[path = "sql/plans.rs"]
mod plans;
#[path = "sql/query.rs"]
mod query;
#[path = "sql/remembered.rs"]
mod remembered;
#[path = "sql/shapes.rs"]
mod shapes;
#[path = "sql/vectors.rs"]
mod vectors;
#[path = "sql/windows.rs"]
mod windows;
#[path = "sql/world.rs"]
mod world;
