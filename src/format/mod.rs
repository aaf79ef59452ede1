//! The bytes of a sidecar: version 1, little-endian.
//!
//! A sidecar is an [Apache Iceberg Puffin](https://iceberg.apache.org/puffin-spec/) file, uncompressed.
//! Each section of the index is a blob of its own type; sections after the header begin at multiples of
//! 64 bytes and end in zeros up to the next.
//!
//! ```text
//! offset 0   "PFA1"
//!        4   datafusion-hnsw-header-v1     256 bytes, below
//!      320   datafusion-hnsw-codes-v1      nodes x code stride     8-bit codes, in the order of the nodes
//!        .   datafusion-hnsw-links-v1      nodes x 2m x u32        neighbors at layer 0
//!        .   datafusion-hnsw-upper-v1      per layer 1, 2, ..: nodes of that layer x m x u32
//!        .   datafusion-hnsw-cells-v1      clusters x code stride     codes of the clusters' centroids
//!                                          (clusters + 1) x layers x u32   where each begins; only if there
//!                                                                  are clusters
//!        .   datafusion-hnsw-groups-v1     groups x code stride    codes of the means of so many clusters that
//!                                                                  follow each other; only if grouped
//!        .   datafusion-hnsw-nodes-v1      linked x u32            rows of node 0, of node 1, ..
//!                                          (nodes + 1) x u32       where each begins; only if some
//!                                                                  node stands for several rows
//!        .   datafusion-hnsw-rows-v1       rows x u32              slot of each row, or 0xFFFFFFFF
//!        .   datafusion-hnsw-lists-v1      NULL rows, zero rows, unindexable rows, x u32 each, ascending
//!        .   datafusion-hnsw-vectors-v1    slots x dim x f32 (f16) vectors, in the order of the slots
//!      end   Puffin footer: "PFA1", JSON, its length (u32), 0 (u32), "PFA1"
//! ```
//!
//! - *Nodes* are distinct vectors, numbered so that those of higher layers come first: layer `l` holds the
//!   nodes `0 .. levels[l]`, so its lists need no index. Node 0 is the entry point. Within a layer,
//!   neighbors in space are neighbors in number.
//! - *Clusters* are groups of near nodes, for filtered searches and for beam searches to begin in. The nodes of a cluster whose
//!   highest layer is `l` are those from `starts[cluster][l]` up to `starts[cluster + 1][l]`. Small indexes, those without
//!   codes, and sidecars from before there were clusters have none.
//! - *Groups* are runs of as many clusters as the header says; the last may have fewer. Only many clusters are grouped.
//! - *Slots* are places in the vectors section: the nodes, then the zero and unindexable rows, ascending
//!   by row.
//! - A list of neighbors ends at its first `0xFFFFFFFF`, or when it is full.
//! - A section longer than 1 GiB continues in further blobs of its type, each beginning where the one
//!   before ends.
//! - Blobs of other types are passed over, so that later writers can add some.
//!
//! The header:
//!
//! ```text
//!   0  "DFHNSW\r\n"                        56  NULL rows        u32
//!   8  version               u32           60  zero rows        u32
//!  12  metric                u32           64  unindexable rows    u32
//!  16  dim                   u32           68  kind of codes    u32   0 none, 1 squared, 2 dot
//!  20  m                     u32           72  code stride      u32
//!  24  ef_construction       u32           76  code offset      f32   Squared: x = offset + code * scale
//!  28  stored vectors        u32           80  code scale       f32   Dot: x = (code - 128) * scale
//!  32  seed                  u64           84  max_norm          f32   no linked vector is longer
//!  40  rows                  u64           88  layers           u32
//!  48  slots                 u32           92  levels           u32 x 32
//!  52  linked rows           u32          220  clusters            u32
//!                                         224  clusters of a group u32   0: not grouped
//!                                         228  zeros
//!                                         248  xxh3-64 of the bytes before
//! ```
//!
//! Each blob has its xxh3-64 in the property `xxh3-64`; the footer has its own in `footer-xxh3-64`,
//! computed with zeros in its place.

mod about;
mod layout;
mod meta;
mod puffin;
mod section;
mod verify;
mod view;
mod write;

use std::io;

pub use layout::VERSION;
pub use meta::{SidecarMeta, SourceIdentity};
pub use view::View;
pub use write::write;

use crate::hnsw::HnswIndex;

/// Why bytes are not a sidecar that can be searched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Something else entirely.
    #[error("not a sidecar: it does not begin as a Puffin file does")]
    NotASidecar,
    /// Written by a later version of this crate.
    #[error(
        "the sidecar has format version {found}, and this program knows versions up to {known}; \
             rebuild the index or use a newer program"
    )]
    Newer {
        /// The sidecar's version.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// Not as it was written.
    #[error("the {section} section of the sidecar is damaged ({reason}); rebuild the index")]
    Damaged {
        /// The section.
        section: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl FormatError {
    fn damaged(section: &'static str, reason: impl Into<String>) -> Self {
        Self::Damaged {
            section,
            reason: reason.into(),
        }
    }
}

/// An index as bytes in memory, and back.
#[derive(Clone, Copy, Debug)]
pub struct HnswSerializer;

impl HnswSerializer {
    /// The bytes of a sidecar that says nothing about its source.
    pub fn to_bytes(index: &HnswIndex) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written: io::Result<u64> = write(index, &SidecarMeta::default(), &mut bytes);
        written.expect("writing to memory does not fail");
        bytes
    }

    /// Copies an index out of the bytes of a sidecar. To search the bytes in place, use [`View`].
    ///
    /// # Errors
    ///
    /// If the bytes are not a sidecar, or not all as they were written.
    pub fn from_bytes(bytes: &[u8]) -> Result<HnswIndex, FormatError> {
        let view = View::open(bytes)?;
        view.verify()?;
        Ok(view.to_index())
    }
}
