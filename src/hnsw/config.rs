//! What a build can be told, and how it can fail.

use std::fmt;
use std::str::FromStr;

/// Links per node in the upper layers, unless told otherwise (twice as many at layer 0).
pub const DEFAULT_M: usize = 16;
/// Candidates kept while a node is inserted, unless told otherwise.
pub const DEFAULT_EF_CONSTRUCTION: usize = 200;
/// Seed of the level generator, unless told otherwise.
pub const DEFAULT_SEED: u64 = 42;
/// Candidates kept by a search, unless told otherwise.
pub const DEFAULT_EF_SEARCH: usize = 64;

/// The least and greatest accepted `m`.
pub const M_RANGE: std::ops::RangeInclusive<usize> = 2..=128;
/// The least and greatest accepted `ef_construction`.
pub const EF_CONSTRUCTION_RANGE: std::ops::RangeInclusive<usize> = 1..=10_000;
/// The longest accepted vector.
pub const MAX_DIM: usize = 65_535;
/// The longest vector that has an 8-bit code: squared distances between codes of this length fit 31 bits. The
/// beam search goes over longer ones as they are, so they must be stored.
pub const MAX_CODE_DIM: usize = 32_000;
/// The greatest number of rows of one index. A search sorts its candidates as words of 64 bits: 32 of the
/// distance, 31 of the id, and one that says whether its neighbors were looked at. A file has fewer rows, as
/// they would not fit a build's memory; a table is many files.
pub const MAX_ROWS: u64 = (1 << 31) - 1;

/// What the index keeps of each vector besides its 8-bit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StoredVectors {
    /// The vectors as they are, 4 bytes a component.
    #[default]
    F32,
    /// Rounded to half precision, 2 bytes a component. Distances are then those of the rounded vectors.
    F16,
    /// Nothing: distances are estimated from the codes, and the caller decides with the source's vectors.
    None,
}

impl StoredVectors {
    /// The name used in SQL and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::None => "none",
        }
    }
}

impl fmt::Display for StoredVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for StoredVectors {
    type Err = BuildError;

    fn from_str(name: &str) -> Result<Self, BuildError> {
        match name.trim().to_ascii_lowercase().as_str() {
            "f32" | "full" => Ok(Self::F32),
            "f16" | "half" => Ok(Self::F16),
            "none" | "codes" => Ok(Self::None),
            _ => Err(BuildError::Stored(name.to_owned())),
        }
    }
}

/// Settings of a build. Change fields of the default.
///
/// ```
/// use datafusion_hnsw::hnsw::HnswConfig;
/// let config = HnswConfig { m: 24, ..HnswConfig::default() };
/// # assert_eq!(config.ef_construction, 200);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HnswConfig {
    /// Links per node in the upper layers; twice as many at layer 0. The paper's *M*.
    pub m: usize,
    /// Candidates kept while a node is inserted, of which the nearest two fifths are gone on from. The paper's
    /// *efConstruction*.
    pub ef_construction: usize,
    /// Seed of the level generator and of the insertion order.
    pub seed: u64,
    /// Threads of the build; 0 means as many as the machine has. The result does not depend on it.
    pub threads: usize,
    /// What is kept of each vector.
    pub stored: StoredVectors,
}

impl Default for HnswConfig {
    fn default() -> Self {
        Self {
            m: DEFAULT_M,
            ef_construction: DEFAULT_EF_CONSTRUCTION,
            seed: DEFAULT_SEED,
            threads: 0,
            stored: StoredVectors::default(),
        }
    }
}

impl HnswConfig {
    /// Checks that every number is in its range.
    ///
    /// # Errors
    ///
    /// Names the first setting that is not.
    pub fn check(&self) -> Result<(), BuildError> {
        if !M_RANGE.contains(&self.m) {
            return Err(BuildError::OutOfRange {
                setting: "m",
                value: self.m,
                least: *M_RANGE.start(),
                most: *M_RANGE.end(),
            });
        }
        if !EF_CONSTRUCTION_RANGE.contains(&self.ef_construction) {
            return Err(BuildError::OutOfRange {
                setting: "ef_construction",
                value: self.ef_construction,
                least: *EF_CONSTRUCTION_RANGE.start(),
                most: *EF_CONSTRUCTION_RANGE.end(),
            });
        }
        Ok(())
    }
}

/// Why an index could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is outside its range.
    #[error("{setting} must be between {least} and {most}, got {value}")]
    OutOfRange {
        /// The setting's name.
        setting: &'static str,
        /// What was given.
        value: usize,
        /// The least accepted value.
        least: usize,
        /// The greatest accepted value.
        most: usize,
    },
    /// The name is not that of a way to store vectors.
    #[error("unknown vector storage '{0}'; use f32, f16 or none")]
    Stored(String),
    /// A vector has another length than the index.
    #[error("row {row} has a vector of {found} numbers but the index holds vectors of {expected}")]
    Dimension {
        /// The row of the vector.
        row: u64,
        /// The index's dimension.
        expected: usize,
        /// The vector's length.
        found: usize,
    },
    /// A row was inserted twice.
    #[error("row {0} was inserted twice")]
    DuplicateRow(u64),
    /// More rows than ids.
    #[error("an index holds at most {MAX_ROWS} rows; row {0} is beyond that")]
    TooManyRows(u64),
    /// The caller's progress function asked to stop.
    #[error("the build was cancelled")]
    Cancelled,
    /// The threads of the build could not be started.
    #[error("cannot start the build's threads: {0}")]
    Threads(String),
}
