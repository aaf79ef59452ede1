//! Answering one search: from a table with a request to Arrow batches.
//!
//! In reading order: [`table`] is the provider that holds the request, [`files`] finds how each file is answered,
//! [`scan`] is the node of the plan, [`through_index`] and [`brute_force`] find candidates in one file, [`top_k_bound`]
//! is what files tell each other, [`merge`] picks the rows of the answer, [`fetch`] reads them. Beside them:
//! [`subquery_results`], [`lookup`] (the row whose vector a subquery gives), [`cancel`], and what EXPLAIN shows ([`explain`], [`metrics`], [`refused`]).
//!
//! This room does not look at plans: it is given a request.

pub(crate) mod brute_force;
pub(crate) mod cancel;
pub(crate) mod explain;
pub(crate) mod fetch;
pub(crate) mod files;
pub(crate) mod lookup;
pub(crate) mod merge;
pub(crate) mod metrics;
pub(crate) mod refused;
pub(crate) mod scan;
pub(crate) mod subquery_results;
pub(crate) mod table;
pub(crate) mod through_index;
pub(crate) mod top_k_bound;
