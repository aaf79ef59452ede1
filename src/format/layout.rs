//! The header: the numbers that the lengths of all sections follow from.

use crate::hnsw::raw::MAX_LEVELS;
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
    pub(super) unindexable: u32,
    /// 0: none; 1: squared differences; 2: inner products.
    pub(super) code_kind: u32,
    pub(super) code_stride: u32,
    pub(super) code_offset: f32,
    pub(super) code_scale: f32,
    pub(super) max_norm: f32,
    /// Nodes in each layer.
    pub(super) levels: Vec<u32>,
    /// Clusters, which are groups of near nodes; 0 if there are none, and in sidecars from before there were any.
    pub(super) clusters: u32,
    /// Clusters of a group; 0 if there are no groups, as before there were any.
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
            self.unindexable,
            self.code_kind,
            self.code_stride,
            self.code_offset.to_bits(),
            self.code_scale.to_bits(),
            self.max_norm.to_bits(),
            u32::try_from(self.levels.len()).expect("at most 32 layers"),
        ] {
            out.extend(word.to_le_bytes());
        }
        for layer in 0..MAX_LEVELS {
            out.extend(self.levels.get(layer).copied().unwrap_or(0).to_le_bytes());
        }
        out.extend(self.clusters.to_le_bytes());
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
        let (nulls, zeros, unindexable) = (fields.u32(), fields.u32(), fields.u32());
        let (code_kind, code_stride) = (fields.u32(), fields.u32());
        let code_offset = f32::from_bits(fields.u32());
        let code_scale = f32::from_bits(fields.u32());
        let max_norm = f32::from_bits(fields.u32());
        let layers = fields.u32() as usize;
        let mut levels: Vec<u32> = (0..MAX_LEVELS).map(|_| fields.u32()).collect();
        if !(1..=MAX_LEVELS).contains(&layers) {
            return Err(damaged("impossible number of layers"));
        }
        levels.truncate(layers);
        let (clusters, group) = (fields.u32(), fields.u32());
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
            unindexable,
            code_kind,
            code_stride,
            code_offset,
            code_scale,
            max_norm,
            levels,
            clusters,
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
                u64::from(self.slots)
                    == u64::from(nodes) + u64::from(self.zeros) + u64::from(self.unindexable),
                "impossible number of slots",
            ),
            (
                u64::from(self.linked)
                    + u64::from(self.nulls)
                    + u64::from(self.zeros)
                    + u64::from(self.unindexable)
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
                self.clusters == 0 || (self.code_kind != 0 && self.clusters <= nodes),
                "impossible number of cells",
            ),
            (
                self.group <= self.clusters,
                "impossible number of cells in a group",
            ),
            (
                self.max_norm.is_finite() && self.max_norm >= 0.0,
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
