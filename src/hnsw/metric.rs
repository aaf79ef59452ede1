//! The distances. Smaller is nearer in every one of them.

use std::fmt;
use std::str::FromStr;

/// How far two vectors are from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorMetric {
    /// `1 - a·b / (|a| |b|)`; undefined (NULL in SQL) when either vector is zero.
    Cosine,
    /// `|a - b|`, not squared.
    Euclidean,
    /// `-(a·b)`, so that the largest inner product is the nearest.
    DotProduct,
    /// `1 - a·b`: cosine distance for vectors that are known to have length 1.
    NormalizedCosine,
}

impl VectorMetric {
    /// Every metric, in the order of their codes in the file.
    pub const ALL: [Self; 4] = [
        Self::Cosine,
        Self::Euclidean,
        Self::DotProduct,
        Self::NormalizedCosine,
    ];

    /// The name used in SQL, in file names and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Euclidean => "l2",
            Self::DotProduct => "ip",
            Self::NormalizedCosine => "normalized_cosine",
        }
    }

    /// Whether only the direction of a vector matters.
    pub(crate) const fn ignores_length(self) -> bool {
        matches!(self, Self::Cosine)
    }

    /// The number that stands for this metric in the file.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Cosine => 1,
            Self::Euclidean => 2,
            Self::DotProduct => 3,
            Self::NormalizedCosine => 4,
        }
    }

    /// The metric that a number in the file stands for.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.code() == code)
    }
}

impl fmt::Display for VectorMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is not that of a metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown metric '{0}'; use cosine, l2, ip or normalized_cosine")]
pub struct UnknownMetric(pub String);

impl FromStr for VectorMetric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Self, UnknownMetric> {
        match name.trim().to_ascii_lowercase().as_str() {
            "cosine" | "cos" => Ok(Self::Cosine),
            "l2" | "euclidean" | "l2sq" => Ok(Self::Euclidean),
            "ip" | "inner_product" | "dot" | "dot_product" => Ok(Self::DotProduct),
            "normalized_cosine" => Ok(Self::NormalizedCosine),
            _ => Err(UnknownMetric(name.to_owned())),
        }
    }
}
