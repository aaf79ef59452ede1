//! What a sidecar is called.
//!
//! ```text
//! part-0.parquet . embedding . l2 . hnsw
//! └ Parquet file   └ column    └ metric
//! ```
//!
//! The column is percent-encoded, dots included, so that a name splits from the right in one way only. A column
//! indexed under two metrics has two sidecars.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use xxhash_rust::xxh3::xxh3_64;

use crate::hnsw::VectorMetric;

/// What every sidecar's name ends with.
pub(crate) const EXTENSION: &str = "hnsw";

/// What a column keeps unencoded beside letters and digits.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// File systems allow 255 bytes for a name; the rest is for the dot and the ending of a file being written.
const LONGEST: usize = 240;

/// The parts of a sidecar's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarName {
    /// The last part of the Parquet file's path.
    pub parquet: String,
    /// The column as it stands in the name: percent-encoded, and shortened if very long.
    encoded_column: String,
    /// The metric that the index serves.
    pub metric: VectorMetric,
}

impl SidecarName {
    /// The name of the sidecar for this column of this Parquet file.
    pub fn new(parquet: &str, column: &str, metric: VectorMetric) -> Self {
        let mut encoded_column = utf8_percent_encode(column, ENCODED).to_string();
        let fixed = parquet.len() + metric.to_string().len() + EXTENSION.len() + 3;
        let room = LONGEST.saturating_sub(fixed);
        if encoded_column.len() > room {
            // `~` is never part of an encoded column, so a shortened name cannot be another column's full name.
            let hash = format!("~{:016x}", xxh3_64(column.as_bytes()));
            encoded_column.truncate(room.saturating_sub(hash.len()).min(64));
            encoded_column.push_str(&hash);
        }
        Self {
            parquet: parquet.to_owned(),
            encoded_column,
            metric,
        }
    }

    /// Reads a name back; `None` if it is not a sidecar's.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
        let (rest, metric) = rest.rsplit_once('.')?;
        let (parquet, encoded_column) = rest.rsplit_once('.')?;
        let metric = VectorMetric::of_name(metric)?;
        if parquet.is_empty() || encoded_column.is_empty() {
            return None;
        }
        Some(Self {
            parquet: parquet.to_owned(),
            encoded_column: encoded_column.to_owned(),
            metric,
        })
    }

    /// The column, unless it was too long to stand in the name.
    pub fn column(&self) -> Option<String> {
        if self.encoded_column.contains('~') {
            return None;
        }
        Some(
            percent_decode_str(&self.encoded_column)
                .decode_utf8()
                .ok()?
                .into_owned(),
        )
    }

    /// Whether both index the same column under the same metric, of whatever files.
    pub fn is_of_same_index(&self, other: &Self) -> bool {
        self.encoded_column == other.encoded_column && self.metric == other.metric
    }

    /// The same column of the same file under the other metrics.
    pub(crate) fn other_metrics(&self) -> impl Iterator<Item = Self> + '_ {
        VectorMetric::ALL
            .into_iter()
            .filter(|metric| *metric != self.metric)
            .map(|metric| Self {
                metric,
                ..self.clone()
            })
    }
}

impl fmt::Display for SidecarName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}.{}.{EXTENSION}",
            self.parquet, self.encoded_column, self.metric
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_its_parts() {
        for column in ["embedding", "a.b", "größe", "a b/c", "%20", "~", "l2", "."] {
            for metric in VectorMetric::ALL {
                let name = SidecarName::new("part-0.snappy.parquet", column, metric);
                let text = name.to_string();
                assert!(!text.contains('/') && !text.contains(' '), "{text}");
                let back = SidecarName::parse(&text).expect("our own name");
                assert_eq!(back, name);
                assert_eq!(back.column().as_deref(), Some(column));
            }
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in [
            "",
            "hnsw",
            ".hnsw",
            "a.hnsw",
            "l2.hnsw",
            ".c.l2.hnsw",
            "a..l2.hnsw",
            "a.c.foo.hnsw",
            "a.c.euclidean.hnsw",
            "a.c.L2.hnsw",
            "a.parquet",
        ] {
            assert_eq!(SidecarName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn long_columns_are_shortened_and_stay_apart() {
        let one = SidecarName::new("t.parquet", &"é".repeat(300), VectorMetric::Cosine);
        let two = SidecarName::new("t.parquet", &"é".repeat(301), VectorMetric::Cosine);
        assert!(one.to_string().len() <= LONGEST);
        assert_ne!(one, two);
        assert_eq!(one.column(), None);
        assert_eq!(SidecarName::parse(&one.to_string()), Some(one));
    }
}
