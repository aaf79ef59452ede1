//! Checking all that a sidecar holds, which opening it does not.

use xxhash_rust::xxh3::xxh3_64;

use super::FormatError;
use super::puffin::{BLOB_CHECKSUM, Footer};
use super::section::Section;
use super::view::{View, blob_place};
use crate::hnsw::raw::reachable;

impl<B: AsRef<[u8]>> View<B> {
    /// Checks everything: the checksum of every blob, every link and row number, and that layer 0 leads
    /// from the entry point to every node. Reads the whole file.
    ///
    /// # Errors
    ///
    /// Names the first section that is not as it was written.
    pub fn verify(&self) -> Result<(), FormatError> {
        let file = self.bytes.as_ref();
        let (footer, end) = Footer::from_file(file)?;
        for blob in &footer.blobs {
            let damaged = |reason| FormatError::damaged(section_name(&blob.r#type), reason);
            let place = blob_place(blob, end).ok_or_else(|| damaged("outside of the file"))?;
            let claimed = blob.properties.get(BLOB_CHECKSUM);
            if claimed.is_some_and(|claimed| *claimed != format!("{:016x}", xxh3_64(&file[place]))) {
                return Err(damaged("the checksum does not agree"));
            }
        }
        self.verify_content()
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

fn section_name(blob_type: &str) -> &'static str {
    Section::ALL
        .into_iter()
        .find(|section| section.blob_type() == blob_type)
        .map_or("further blob", Section::name)
}
