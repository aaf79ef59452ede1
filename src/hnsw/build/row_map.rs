//! Where each row of the source ends up.

use super::duplicates::Groups;
use crate::hnsw::ids::{Le32, NO_SLOT};

/// Where a row of the source ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the graph.
    Linked,
    /// NULL.
    Null,
    /// A zero vector under cosine: its distance is NULL in SQL.
    Zero,
    /// Not finite, or of a length that f32 sums of squares cannot hold.
    Unindexable,
}

/// Which rows the nodes stand for, and where the vector of each row is, as the file keeps them.
pub(crate) struct RowMap {
    pub(crate) node_rows: Vec<Le32>,
    pub(crate) starts: Vec<Le32>,
    pub(crate) row_slots: Vec<Le32>,
    pub(crate) nulls: Vec<Le32>,
    pub(crate) zeros: Vec<Le32>,
    pub(crate) unindexable: Vec<Le32>,
}

impl RowMap {
    /// Of the rows as they were inserted, sorted, and the groups in the order of the nodes.
    pub(crate) fn new(rows: &[(u32, Kind, u32)], groups: &Groups) -> Self {
        let row_count = rows.last().map_or(0, |&(row, ..)| row as usize + 1);
        let small = |n: usize| u32::try_from(n).expect("as many as rows at most");
        let linked = rows.iter().filter(|(_, kind, _)| *kind == Kind::Linked).count();
        let mut row_slots = vec![NO_SLOT.to_le_bytes(); row_count];
        let mut node_rows: Vec<Le32> = Vec::with_capacity(linked);
        let mut starts: Vec<Le32> = Vec::new();
        for (node, group) in groups.iter().enumerate() {
            if linked > groups.len() {
                starts.push(small(node_rows.len()).to_le_bytes());
            }
            for &(row, _) in group {
                row_slots[row as usize] = small(node).to_le_bytes();
                node_rows.push(row.to_le_bytes());
            }
        }
        if linked > groups.len() {
            starts.push(small(node_rows.len()).to_le_bytes());
        }
        let list = |wanted: Kind| -> Vec<Le32> {
            let of_kind = rows.iter().filter(|(_, kind, _)| *kind == wanted);
            of_kind.map(|(row, ..)| row.to_le_bytes()).collect()
        };
        let with_vector = rows
            .iter()
            .filter(|(_, kind, _)| matches!(kind, Kind::Zero | Kind::Unindexable));
        for (extra, &(row, ..)) in with_vector.enumerate() {
            row_slots[row as usize] = small(groups.len() + extra).to_le_bytes();
        }
        Self {
            node_rows,
            starts,
            row_slots,
            nulls: list(Kind::Null),
            zeros: list(Kind::Zero),
            unindexable: list(Kind::Unindexable),
        }
    }
}
