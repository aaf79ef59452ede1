//! Clusters of near nodes, as in an inverted file (IVF): entry points of the beam search, lists to probe under a
//! filter, and the order in which nodes lie.
//!
//! [`kmeans`] finds them, [`inverted_lists`] stores them, [`nearest`] ranks them by distance to a query,
//! [`entry_points`] begins a beam search in them.

pub(crate) mod entry_points;
pub(crate) mod inverted_lists;
pub(crate) mod kmeans;
pub(crate) mod nearest;
