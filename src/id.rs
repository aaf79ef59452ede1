//! The two numbers that must never be swapped.
//!
//! A [`RowId`] is a row of the source; a [`NodeId`] is a place in the graph. They meet in one
//! place, the row map of the index: one node stands for one or more rows (identical vectors share
//! a node).

use std::fmt;

/// A row of the indexed source: the ordinal of the row in the Parquet file, counted from 0 over all
/// its row groups. For an index over several files, the ordinal over their concatenation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(u64);

impl RowId {
    /// The row with this ordinal.
    pub const fn new(ordinal: u64) -> Self {
        Self(ordinal)
    }

    /// The ordinal of the row, counted from 0.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in the graph, counted from 0 in the order in which nodes lie in the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The node at this place.
    pub const fn new(place: u32) -> Self {
        Self(place)
    }

    /// The place of the node, counted from 0.
    pub const fn get(self) -> u32 {
        self.0
    }
}
