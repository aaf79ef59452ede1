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

/// One metric in the table of [`METRICS`].
struct Metric {
    metric: VectorMetric,
    /// The number that stands for it in the file.
    code: u32,
    /// Its name in SQL, in file names and in messages.
    name: &'static str,
    /// What else it is called: in Rust, by the distance functions, and in other systems. These are written as
    /// [`plain`] leaves them: in lower case and without underscores.
    other_names: &'static [&'static str],
}

/// Every name and code of a metric. A new metric gets a line here and its kernels.
const METRICS: [Metric; 4] = [
    Metric {
        metric: VectorMetric::Cosine,
        code: 1,
        name: "cosine",
        other_names: &["cos", "cosinedistance"],
    },
    Metric {
        metric: VectorMetric::Euclidean,
        code: 2,
        name: "l2",
        other_names: &[
            "euclidean",
            "l2sq",
            "l2distance",
            "arraydistance",
            "euclideandistance",
        ],
    },
    Metric {
        metric: VectorMetric::DotProduct,
        code: 3,
        name: "ip",
        other_names: &["dotproduct", "dot", "innerproduct"],
    },
    Metric {
        metric: VectorMetric::NormalizedCosine,
        code: 4,
        name: "normalized_cosine",
        other_names: &[],
    },
];

impl VectorMetric {
    /// Every metric, in the order of their codes in the file.
    pub const ALL: [Self; METRICS.len()] = {
        let mut all = [Self::Cosine; METRICS.len()];
        let mut at = 0;
        while at < METRICS.len() {
            all[at] = METRICS[at].metric;
            at += 1;
        }
        all
    };

    /// Its line in the table.
    const fn line(self) -> &'static Metric {
        let mut at = 0;
        // The last line is left when no other one fits.
        while at + 1 < METRICS.len() && METRICS[at].metric as usize != self as usize {
            at += 1;
        }
        &METRICS[at]
    }

    /// The name used in SQL, in file names and in messages.
    pub const fn name(self) -> &'static str {
        self.line().name
    }

    /// The metric that has exactly this [`name`](Self::name), as file names spell it.
    #[cfg(feature = "store")]
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether only the direction of a vector matters.
    pub(crate) const fn ignores_length(self) -> bool {
        matches!(self, Self::Cosine)
    }

    /// The number that stands for this metric in the file.
    pub(crate) const fn code(self) -> u32 {
        self.line().code
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
#[error("there is no metric '{0}'; use {names}", names = VectorMetric::ALL.map(VectorMetric::name).join(", "))]
pub struct UnknownMetric(pub String);

impl FromStr for VectorMetric {
    type Err = UnknownMetric;

    /// Reads any name of a metric, in any case, with underscores or without: `l2`, `Euclidean`, `dot_product`.
    fn from_str(name: &str) -> Result<Self, UnknownMetric> {
        let plain = plain(name);
        METRICS
            .iter()
            .find(|line| plain == self::plain(line.name) || line.other_names.contains(&plain.as_str()))
            .map(|line| line.metric)
            .ok_or_else(|| UnknownMetric(name.to_owned()))
    }
}

/// A name without what its spellings differ in.
fn plain(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('_', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_names_of_its_own_and_answers_to_those_of_sql_and_of_rust() {
        for metric in VectorMetric::ALL {
            for name in [metric.name().to_owned(), format!("{metric:?}")] {
                for spelling in [name.to_uppercase(), name.to_lowercase(), format!(" {name} ")] {
                    assert_eq!(spelling.parse(), Ok(metric), "{spelling}");
                }
            }
            assert_eq!(VectorMetric::from_code(metric.code()), Some(metric));
            assert_eq!(VectorMetric::of_name(metric.name()), Some(metric));
        }
        let names = METRICS.iter().flat_map(|line| line.other_names).copied();
        let mut names: Vec<String> = names
            .chain(VectorMetric::ALL.map(VectorMetric::name))
            .map(plain)
            .collect();
        names.sort();
        names.dedup();
        let own: usize = METRICS.iter().map(|line| 1 + line.other_names.len()).sum();
        assert_eq!(names.len(), own);
        assert!(VectorMetric::of_name("euclidean").is_none());
        assert_eq!(
            "foo"
                .parse::<VectorMetric>()
                .expect_err("no such metric")
                .to_string(),
            "there is no metric 'foo'; use cosine, l2, ip, normalized_cosine"
        );
    }
}
