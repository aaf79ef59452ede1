//! Is this plan a k-NN query, and which?
//!
//! In reading order: [`order_by`] recognises a sort with a limit, [`sort_key`] finds the distance in its key, [`trace`]
//! follows expressions down to the columns of the table, [`query_vector`] is the other argument of the distance, and
//! [`refusal`] says why a query is left to DataFusion. [`unsearched`] finds the distances of a whole plan that are not
//! searched by, and [`between`] says what the nodes above their scans do.
//!
//! This room reads plans. It does not know how a search is answered.

pub(crate) mod between;
pub(crate) mod order_by;
pub(crate) mod query_vector;
pub(crate) mod refusal;
pub(crate) mod sort_key;
pub(crate) mod trace;
pub(crate) mod unsearched;
