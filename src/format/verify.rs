//! Checking all that a sidecar holds, which opening it does not.

use xxhash_rust::xxh3::xxh3_64;

use super::FormatError;
use super::checksum::Checksum;
use super::section::Section;
use super::view::View;
use crate::hnsw::raw::reachable;
use crate::id::RowId;

impl<B: AsRef<[u8]>> View<B> {
    /// The checksums of all blobs, in the order of the file: for callers that read the file themselves.
    pub fn checksums(&self) -> &[Checksum] {
        &self.checksums
    }

    /// Checks everything: the checksum of every blob, every link and row number, and that layer 0 leads
    /// from the entry point to every node. Reads the whole file.
    ///
    /// # Errors
    ///
    /// Names the first section that is not as it was written.
    pub fn verify(&self) -> Result<(), FormatError> {
        self.verify_checksums(|_| true)?;
        self.verify_content()
    }

    /// Checks the lists of rows without a node, which every search reads to their end: their checksum, and that they
    /// name rows of the file in ascending order.
    ///
    /// # Errors
    ///
    /// If they are not as they were written.
    pub fn verify_lists(&self) -> Result<(), FormatError> {
        self.verify_checksums(|section| section == Section::Lists.name())?;
        self.verify_list_content()
    }

    fn verify_checksums(&self, wanted: impl Fn(&str) -> bool) -> Result<(), FormatError> {
        let file = self.bytes.as_ref();
        for checksum in self.checksums.iter().filter(|checksum| wanted(checksum.section)) {
            let bytes = file.get(checksum.place.clone()).unwrap_or_default();
            checksum.check(xxh3_64(bytes))?;
        }
        Ok(())
    }

    fn verify_content(&self) -> Result<(), FormatError> {
        let parts = self.parts();
        let damaged = |section: Section, reason: &str| Err(FormatError::damaged(section.name(), reason));
        for (layer, &count) in parts.links.levels.iter().enumerate() {
            let section = if layer == 0 {
                Section::Links
            } else {
                Section::Upper
            };
            for node in 0..count {
                let mut list: Vec<u32> = parts.links.neighbors(node, layer).collect();
                if list.iter().any(|&to| to >= count || to == node) {
                    return damaged(section, "a link leads to itself or out of its layer");
                }
                list.sort_unstable();
                if list.windows(2).any(|pair| pair[0] == pair[1]) {
                    return damaged(section, "a link is there twice");
                }
            }
        }
        if !reachable(parts.links).into_iter().all(|reached| reached) {
            return damaged(Section::Links, "a node cannot be reached");
        }
        for node in 0..parts.node_count() {
            let rows = parts
                .node_rows
                .of(node)
                .map_err(|_| FormatError::damaged("nodes", "has a gap"))?;
            for &row in rows {
                if parts.slot_of(u64::from(u32::from_le_bytes(row))) != Some(node) {
                    return damaged(Section::Nodes, "a node and a row disagree");
                }
            }
        }
        if parts
            .clusters
            .is_some_and(|clusters| !clusters.cover(parts.links.levels))
        {
            return damaged(Section::Clusters, "a node has no cell, or several");
        }
        for row in 0..self.rows() {
            if !self.row_agrees(RowId::new(row)) {
                return damaged(
                    Section::RowSums,
                    "the vector of a row is not the one that was stored for it",
                );
            }
        }
        self.verify_list_content()
    }

    fn verify_list_content(&self) -> Result<(), FormatError> {
        let damaged = |section: Section, reason: &str| Err(FormatError::damaged(section.name(), reason));
        for which in 0..3 {
            let list = self.list(which);
            let rows: Vec<u32> = list.iter().map(|&row| u32::from_le_bytes(row)).collect();
            let ascending = rows.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending || rows.last().is_some_and(|&row| u64::from(row) >= self.header.rows) {
                return damaged(Section::Lists, "rows are out of order or out of range");
            }
        }
        Ok(())
    }
}
