//! A checksum of each row's stored vector, so that the few rows of an answer are checked without reading the rest.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::section::Section;
use super::view::View;
use crate::hnsw::raw::Parts;
use crate::id::RowId;

/// The low half of the xxh3-64 of the bytes of a row's vector, seeded with the row's number; of no bytes if the row has
/// no vector.
///
/// The seed makes the sum of one row another row's only by chance, so a row that is led to another row's vector is
/// noticed too.
pub(super) fn row_sum(parts: &Parts<'_>, row: u64) -> u32 {
    let vector = parts.slot_of(row).and_then(|slot| parts.vectors.row(slot));
    let sum = xxh3_64_with_seed(vector.unwrap_or_default(), row);
    u32::try_from(sum & u64::from(u32::MAX)).expect("half of the bits")
}

impl<B: AsRef<[u8]>> View<B> {
    /// Whether the sidecar has a checksum for each row's vector. Those of earlier versions have none.
    pub fn has_row_sums(&self) -> bool {
        self.header.rows == 0 || !self.section(Section::RowSums).is_empty()
    }

    /// Whether the vector of a row is the one that was stored for it. True if there is no checksum to tell.
    pub fn row_agrees(&self, row: RowId) -> bool {
        if !self.has_row_sums() {
            return true;
        }
        let sums = self.words(Section::RowSums);
        let stored = usize::try_from(row.get()).ok().and_then(|row| sums.get(row));
        stored.is_some_and(|&sum| u32::from_le_bytes(sum) == row_sum(&self.parts(), row.get()))
    }
}
