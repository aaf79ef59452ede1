//! The sections of the format and their lengths, computed in one place.

use super::FormatError;
use super::layout::{HEADER, Header};
use crate::hnsw::raw::vector_stride;

/// Sections begin at multiples of this.
pub(super) const ALIGN: usize = 64;

/// The sections, in the order in which they lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Header,
    Codes,
    Links,
    Upper,
    Clusters,
    Groups,
    Nodes,
    Rows,
    Lists,
    Vectors,
}

impl Section {
    pub(super) const ALL: [Self; 10] = [
        Self::Header,
        Self::Codes,
        Self::Links,
        Self::Upper,
        Self::Clusters,
        Self::Groups,
        Self::Nodes,
        Self::Rows,
        Self::Lists,
        Self::Vectors,
    ];

    /// The name in messages and reason codes.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Codes => "codes",
            Self::Links => "links",
            Self::Upper => "upper",
            Self::Clusters => "cells",
            Self::Groups => "groups",
            Self::Nodes => "nodes",
            Self::Rows => "rows",
            Self::Lists => "lists",
            Self::Vectors => "vectors",
        }
    }

    /// Whether indexes that do not have its content do without the blob.
    pub(super) const fn is_optional(self) -> bool {
        matches!(self, Self::Clusters | Self::Groups)
    }

    /// The type of the blob.
    pub(super) fn blob_type(self) -> String {
        format!("datafusion-hnsw-{}-v1", self.name())
    }
}

impl Header {
    /// Bytes of a section's content.
    pub(super) fn length(&self, section: Section) -> Result<usize, FormatError> {
        let nodes = u64::from(self.nodes());
        let m = u64::from(self.m);
        let upper: u64 = self.levels.iter().skip(1).map(|&count| u64::from(count)).sum();
        let (count, each) = match section {
            Section::Header => (1, HEADER as u64),
            Section::Codes if self.code_kind == 0 => (0, 0),
            Section::Codes => (nodes, u64::from(self.code_stride)),
            Section::Links => (nodes, 8 * m),
            Section::Upper => (upper, 4 * m),
            Section::Clusters if self.clusters == 0 => (0, 0),
            Section::Clusters => (
                1,
                u64::from(self.clusters) * u64::from(self.code_stride)
                    + (u64::from(self.clusters) + 1) * 4 * self.levels.len() as u64,
            ),
            Section::Groups if self.group == 0 => (0, 0),
            Section::Groups => (
                u64::from(self.clusters.div_ceil(self.group)),
                u64::from(self.code_stride),
            ),
            Section::Nodes => (
                u64::from(self.linked) + if self.shares_nodes() { nodes + 1 } else { 0 },
                4,
            ),
            Section::Rows => (self.rows, 4),
            Section::Lists => (
                u64::from(self.nulls) + u64::from(self.zeros) + u64::from(self.unindexable),
                4,
            ),
            Section::Vectors => (
                u64::from(self.slots),
                vector_stride(self.stored, self.dim as usize) as u64,
            ),
        };
        count
            .checked_mul(each)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|&length| length <= isize::MAX as usize - ALIGN)
            .ok_or_else(|| FormatError::damaged(section.name(), "longer than this machine can address"))
    }
}
