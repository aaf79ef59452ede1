//! Every offset and length of the format, computed in one place.

use crate::hnsw::raw::{MAX_LEVELS, vector_stride};
use crate::hnsw::{M_RANGE, MAX_CODE_DIM, MAX_DIM, MAX_ROWS, StoredVectors, VectorMetric};
use xxhash_rust::xxh3::xxh3_64;

use super::FormatError;

/// The first bytes of the header.
const MAGIC: [u8; 8] = *b"DFHNSW\r\n";
/// The version that this code writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub(super) const HEADER: usize = 256;
/// Where the header's checksum lies.
const CHECKSUM: usize = HEADER - 8;
/// Sections begin at multiples of this: two cache lines, which processors fetch together.
pub(super) const ALIGN: usize = 128;

/// The sections, in the order in which they lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Header,
    Codes,
    Links,
    Upper,
    Cells,
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
        Self::Cells,
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
            Self::Cells => "cells",
            Self::Groups => "groups",
            Self::Nodes => "nodes",
            Self::Rows => "rows",
            Self::Lists => "lists",
            Self::Vectors => "vectors",
        }
    }

    /// Whether indexes that do not have its content do without the blob.
    pub(super) const fn is_optional(self) -> bool {
        matches!(self, Self::Cells | Self::Groups)
    }

    /// The type of the blob.
    pub(super) fn blob_type(self) -> String {
        format!("datafusion-hnsw-{}-v1", self.name())
    }
}

/// The fixed part of an index: the numbers that all lengths follow from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) metric: VectorMetric,
    pub(super) dim: u32,
    pub(super) m: u32,
    pub(super) ef_construction: u32,
    pub(super) stored: StoredVectors,
    pub(super) seed: u64,
    pub(super) rows: u64,
    pub(super) slots: u32,
    /// Rows that the nodes stand for.
    pub(super) linked: u32,
    pub(super) nulls: u32,
    pub(super) zeros: u32,
    pub(super) unlinked: u32,
    /// 0: none; 1: squared differences; 2: inner products.
    pub(super) code_kind: u32,
    pub(super) code_stride: u32,
    pub(super) code_offset: f32,
    pub(super) code_scale: f32,
    pub(super) longest: f32,
    /// Nodes in each layer.
    pub(super) levels: Vec<u32>,
    /// Cells, which are groups of near nodes; 0 if there are none, and in sidecars from before there were any.
    pub(super) cells: u32,
    /// Cells of a group; 0 if there are no groups, as before there were any.
    pub(super) group: u32,
}

impl Header {
    pub(super) fn nodes(&self) -> u32 {
        self.levels.first().copied().unwrap_or(0)
    }

    pub(super) fn to_bytes(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend(MAGIC);
        for word in [
            VERSION,
            self.metric.code(),
            self.dim,
            self.m,
            self.ef_construction,
            stored_code(self.stored),
        ] {
            out.extend(word.to_le_bytes());
        }
        out.extend(self.seed.to_le_bytes());
        out.extend(self.rows.to_le_bytes());
        for word in [
            self.slots,
            self.linked,
            self.nulls,
            self.zeros,
            self.unlinked,
            self.code_kind,
            self.code_stride,
            self.code_offset.to_bits(),
            self.code_scale.to_bits(),
            self.longest.to_bits(),
            u32::try_from(self.levels.len()).expect("at most 32 layers"),
        ] {
            out.extend(word.to_le_bytes());
        }
        for layer in 0..MAX_LEVELS {
            out.extend(self.levels.get(layer).copied().unwrap_or(0).to_le_bytes());
        }
        out.extend(self.cells.to_le_bytes());
        out.extend(self.group.to_le_bytes());
        out.resize(CHECKSUM, 0);
        out.extend(xxh3_64(&out).to_le_bytes());
        out.try_into().expect("as long as a header")
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let damaged = |reason: &str| FormatError::damaged("header", reason);
        let bytes: &[u8; HEADER] = bytes.try_into().map_err(|_| damaged("has the wrong length"))?;
        let (body, checksum) = bytes
            .split_last_chunk::<8>()
            .ok_or_else(|| damaged("too short"))?;
        let mut fields = Fields(body);
        if fields.take() != MAGIC {
            return Err(damaged("does not begin with its magic"));
        }
        let version = fields.u32();
        if version > VERSION {
            return Err(FormatError::Newer {
                found: version,
                known: VERSION,
            });
        }
        if version == 0 {
            return Err(damaged("version 0"));
        }
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(damaged("the checksum does not agree"));
        }
        let metric = VectorMetric::from_code(fields.u32()).ok_or_else(|| damaged("unknown metric"))?;
        let (dim, m, ef_construction) = (fields.u32(), fields.u32(), fields.u32());
        let stored = stored_from(fields.u32()).ok_or_else(|| damaged("unknown storage of vectors"))?;
        let (seed, rows) = (fields.u64(), fields.u64());
        let (slots, linked) = (fields.u32(), fields.u32());
        let (nulls, zeros, unlinked) = (fields.u32(), fields.u32(), fields.u32());
        let (code_kind, code_stride) = (fields.u32(), fields.u32());
        let code_offset = f32::from_bits(fields.u32());
        let code_scale = f32::from_bits(fields.u32());
        let longest = f32::from_bits(fields.u32());
        let layers = fields.u32() as usize;
        let mut levels: Vec<u32> = (0..MAX_LEVELS).map(|_| fields.u32()).collect();
        if !(1..=MAX_LEVELS).contains(&layers) {
            return Err(damaged("impossible number of layers"));
        }
        levels.truncate(layers);
        let (cells, group) = (fields.u32(), fields.u32());
        let header = Self {
            metric,
            dim,
            m,
            ef_construction,
            stored,
            seed,
            rows,
            slots,
            linked,
            nulls,
            zeros,
            unlinked,
            code_kind,
            code_stride,
            code_offset,
            code_scale,
            longest,
            levels,
            cells,
            group,
        };
        header.check().map_err(damaged)?;
        Ok(header)
    }

    /// Whether the numbers go together. The searches rely on it.
    fn check(&self) -> Result<(), &'static str> {
        let nodes = self.nodes();
        let rules = [
            (
                (1..=MAX_DIM).contains(&(self.dim as usize)),
                "impossible dimension",
            ),
            (M_RANGE.contains(&(self.m as usize)), "impossible m"),
            (self.rows <= MAX_ROWS, "too many rows"),
            (
                self.levels.is_sorted_by(|lower, upper| lower >= upper),
                "a layer is larger than the one below",
            ),
            (
                nodes == 0 || self.levels.iter().all(|&count| count > 0),
                "an empty layer",
            ),
            (u64::from(self.linked) <= self.rows, "more linked rows than rows"),
            (nodes <= self.linked, "more nodes than rows"),
            (
                u64::from(self.slots) == u64::from(nodes) + u64::from(self.zeros) + u64::from(self.unlinked),
                "impossible number of slots",
            ),
            (
                u64::from(self.linked)
                    + u64::from(self.nulls)
                    + u64::from(self.zeros)
                    + u64::from(self.unlinked)
                    <= self.rows,
                "more listed rows than rows",
            ),
            (self.code_kind <= 2, "unknown kind of codes"),
            (
                self.code_kind == 0 || self.dim as usize <= MAX_CODE_DIM,
                "codes of too many numbers",
            ),
            (
                self.code_kind == 0
                    || (self.code_stride >= self.dim && self.code_stride <= self.dim + self.dim / 4 + 64),
                "impossible length of a code",
            ),
            (
                self.code_kind == 0
                    || (self.code_scale.is_finite() && self.code_scale > 0.0 && self.code_offset.is_finite()),
                "impossible scale of codes",
            ),
            (
                self.code_kind != 0 || self.stored != StoredVectors::None || nodes == 0,
                "nothing to walk over",
            ),
            (
                self.cells == 0 || (self.code_kind != 0 && self.cells <= nodes),
                "impossible number of cells",
            ),
            (self.group <= self.cells, "impossible number of cells in a group"),
            (
                self.longest.is_finite() && self.longest >= 0.0,
                "impossible length of the longest vector",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(broken),
            None => Ok(()),
        }
    }

    /// Whether some node stands for several rows, so that the nodes section holds where each begins.
    pub(super) fn shares_nodes(&self) -> bool {
        self.linked != self.nodes()
    }

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
            Section::Cells if self.cells == 0 => (0, 0),
            Section::Cells => (
                1,
                u64::from(self.cells) * u64::from(self.code_stride)
                    + (u64::from(self.cells) + 1) * 4 * self.levels.len() as u64,
            ),
            Section::Groups if self.group == 0 => (0, 0),
            Section::Groups => (
                u64::from(self.cells.div_ceil(self.group)),
                u64::from(self.code_stride),
            ),
            Section::Nodes => (
                u64::from(self.linked) + if self.shares_nodes() { nodes + 1 } else { 0 },
                4,
            ),
            Section::Rows => (self.rows, 4),
            Section::Lists => (
                u64::from(self.nulls) + u64::from(self.zeros) + u64::from(self.unlinked),
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

fn stored_code(stored: StoredVectors) -> u32 {
    match stored {
        StoredVectors::None => 0,
        StoredVectors::F32 => 1,
        StoredVectors::F16 => 2,
    }
}

fn stored_from(code: u32) -> Option<StoredVectors> {
    [StoredVectors::None, StoredVectors::F32, StoredVectors::F16]
        .into_iter()
        .find(|&stored| stored_code(stored) == code)
}

/// The fields of a header, taken one after the other; zeros at the end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
