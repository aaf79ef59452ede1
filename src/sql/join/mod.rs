//! Many queries at once: the k nearest rows of one table for each row of another.
//!
//! In reading order: [`plan`] builds the join, [`ranked_table`] is the table that stands for the pairs of a ranked cross
//! join, [`exec`] is the node of the plan, [`run`] searches and fetches, [`pairs`] writes the rows.

pub(crate) mod exec;
pub(crate) mod pairs;
pub(crate) mod plan;
pub(crate) mod ranked_table;
pub(crate) mod run;
