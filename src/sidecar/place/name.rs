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

/// The most that a name may have: an unfinished file has a dot and the ending `.part` more.
const MOST: usize = 255 - 6;

/// How much of the name of a Parquet file is kept where all of it does not fit: the rest stands for it as a hash.
const PARQUET_KEPT: usize = 120;

/// The parts of a sidecar's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarName {
    /// The last part of the Parquet file's path, shortened if very long.
    pub parquet: String,
    /// The column as it stands in the name: percent-encoded, and shortened if very long.
    encoded_column: String,
    /// The metric that the index serves.
    pub metric: VectorMetric,
}

impl SidecarName {
    /// The name of the sidecar for this column of this Parquet file.
    pub fn new(parquet: &str, column: &str, metric: VectorMetric) -> Self {
        let name = Self::with_parquet(parquet.to_owned(), column, metric);
        if name.to_string().len() <= MOST {
            return name;
        }
        Self::with_parquet(Self::short_parquet(parquet), column, metric)
    }

    /// What stands for the name of a Parquet file in the names of its sidecars where all of it does not fit.
    pub(crate) fn short_parquet(parquet: &str) -> String {
        shortened(parquet, PARQUET_KEPT)
    }

    /// Whether this may stand for a longer name.
    pub(crate) fn is_short_parquet(parquet: &str) -> bool {
        // A character that does not fit leaves up to three bytes of room.
        parquet.contains('~') && (PARQUET_KEPT - 3..=PARQUET_KEPT).contains(&parquet.len())
    }

    fn with_parquet(parquet: String, column: &str, metric: VectorMetric) -> Self {
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
            parquet,
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

/// The text if it has at most this many bytes, or else its beginning and a hash of all of it.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let hash = format!("~{:016x}", xxh3_64(text.as_bytes()));
    let mut kept = most.saturating_sub(hash.len());
    while !text.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}{hash}", &text[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_of_parquet_files_are_shortened_only_where_they_must_be() {
        let fits = format!("{}.parquet", "a".repeat(150));
        let name = SidecarName::new(&fits, "embedding", VectorMetric::Cosine);
        assert_eq!(name.to_string(), format!("{fits}.embedding.cosine.hnsw"));
        for column in ["v", "embedding", &"c".repeat(300)] {
            let file = |last: char| format!("{}{last}.parquet", "ß".repeat(122));
            let [one, two] =
                ['1', '2'].map(|last| SidecarName::new(&file(last), column, VectorMetric::Cosine));
            assert_ne!(one, two);
            assert!(one.to_string().len() <= MOST);
            assert_eq!(one.parquet, SidecarName::short_parquet(&file('1')));
            assert_eq!(SidecarName::parse(&one.to_string()), Some(one));
        }
    }

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
