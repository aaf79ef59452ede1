//! The options string that the table functions take last: `'metric=cosine, m=16, ef_search=200'`.
//!
//! `key=value` pairs separated by commas, in any order. A value that holds a comma, a space at its
//! end or a quote is quoted itself, with either kind of quote, doubled inside: `name="a, b"`.
//! Every function names the keys it takes; all share this parser, its ranges and its messages.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use datafusion::common::{Result, plan_err};

use crate::hnsw::{StoredVectors, VectorMetric};
use crate::sql::recognize::sort_key::Distance;

/// Values of [`Key::M`].
pub const M: RangeInclusive<u64> = 2..=128;
/// Values of [`Key::EfConstruction`].
pub const EF_CONSTRUCTION: RangeInclusive<u64> = 1..=10_000;
/// Values of [`Key::EfSearch`]; more than the rows of a file means all of them.
pub const EF_SEARCH: RangeInclusive<u64> = 1..=u32::MAX as u64;
/// Values of [`Key::Seed`].
pub const SEED: RangeInclusive<u64> = 0..=u64::MAX;
/// Values of [`Key::Threads`]; 0 means all cores.
pub const THREADS: RangeInclusive<u64> = 0..=1024;

/// A key of the options string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `metric=cosine`: the distance.
    Metric,
    /// `m=16`: links of a node.
    M,
    /// `ef_construction=200`: breadth of the search that builds.
    EfConstruction,
    /// `ef_search=64`: breadth of the search that answers.
    EfSearch,
    /// `seed=42`: of the levels.
    Seed,
    /// `stored=f32`: what is kept of each vector.
    Stored,
    /// `threads=0`: that build.
    Threads,
    /// `name=my_idx`: of the index.
    Name,
    /// `if_not_exists=true`: no error if the index exists.
    IfNotExists,
    /// `if_exists=true`: no error if the index does not exist.
    IfExists,
}

impl Key {
    /// The key as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metric => "metric",
            Self::M => "m",
            Self::EfConstruction => "ef_construction",
            Self::EfSearch => "ef_search",
            Self::Seed => "seed",
            Self::Stored => "stored",
            Self::Threads => "threads",
            Self::Name => "name",
            Self::IfNotExists => "if_not_exists",
            Self::IfExists => "if_exists",
        }
    }

    const fn range(self) -> Option<RangeInclusive<u64>> {
        match self {
            Self::M => Some(M),
            Self::EfConstruction => Some(EF_CONSTRUCTION),
            Self::EfSearch => Some(EF_SEARCH),
            Self::Seed => Some(SEED),
            Self::Threads => Some(THREADS),
            Self::Metric | Self::Stored | Self::Name | Self::IfNotExists | Self::IfExists => None,
        }
    }

    /// What may stand behind the `=`.
    fn values(self) -> String {
        match (self, self.range()) {
            (Self::Metric, _) => metric_names(),
            (Self::Stored, _) => "f32, f16 or none".to_string(),
            (Self::Name, _) => "a name".to_string(),
            (_, Some(range)) if *range.end() == u64::MAX => "a whole number".to_string(),
            (_, Some(range)) => format!("a whole number from {} to {}", range.start(), range.end()),
            (_, None) => "true or false".to_string(),
        }
    }
}

/// The metrics that an SQL function orders by.
pub(crate) fn metrics_in_sql() -> impl Iterator<Item = VectorMetric> {
    let all = VectorMetric::ALL.into_iter();
    all.filter(|metric| Distance::of_metric(*metric).is_some())
}

fn metric_names() -> String {
    metrics_in_sql()
        .map(VectorMetric::name)
        .collect::<Vec<_>>()
        .join(" or ")
}

/// The options that were given; `None` for those that were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionList {
    /// The metric.
    pub metric: Option<VectorMetric>,
    /// Links of a node.
    pub m: Option<usize>,
    /// Breadth of the search that builds.
    pub ef_construction: Option<usize>,
    /// Breadth of the search that answers.
    pub ef_search: Option<usize>,
    /// Seed of the levels.
    pub seed: Option<u64>,
    /// What is kept of each vector.
    pub stored: Option<StoredVectors>,
    /// Threads that build.
    pub threads: Option<usize>,
    /// Name of the index.
    pub name: Option<String>,
    /// Whether an index that exists is no error.
    pub if_not_exists: Option<bool>,
    /// Whether an index that does not exist is no error.
    pub if_exists: Option<bool>,
}

impl OptionList {
    /// Reads an options string for `function`, which takes these `keys`.
    ///
    /// # Errors
    ///
    /// Names the offending part, and the keys or values that would do.
    pub fn parse(text: &str, function: &str, keys: &[Key]) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in pairs(text).map_err(|part| not_a_pair(&part, function, keys))? {
            options.set(&key, &value, function, keys)?;
        }
        Ok(options)
    }

    /// Takes one option, as [`parse`](Self::parse) does.
    ///
    /// # Errors
    ///
    /// For an unknown key, a key given twice, and a value out of range.
    pub fn set(&mut self, key: &str, value: &str, function: &str, keys: &[Key]) -> Result<()> {
        let Some(key) = keys
            .iter()
            .copied()
            .find(|known| known.name().eq_ignore_ascii_case(key))
        else {
            return plan_err!(
                "{function}: there is no option '{key}'; the options are {}",
                describe(keys)
            );
        };
        let twice = match key {
            Key::Metric => self.metric.replace(metric(value, function)?).is_some(),
            Key::M => self.m.replace(whole(key, value, function)?).is_some(),
            Key::EfConstruction => self
                .ef_construction
                .replace(whole(key, value, function)?)
                .is_some(),
            Key::EfSearch => self.ef_search.replace(whole(key, value, function)?).is_some(),
            Key::Seed => self.seed.replace(whole(key, value, function)?).is_some(),
            Key::Stored => self.stored.replace(stored(value, function)?).is_some(),
            Key::Threads => self.threads.replace(whole(key, value, function)?).is_some(),
            Key::Name => self.name.replace(name(value, function)?).is_some(),
            Key::IfNotExists => self.if_not_exists.replace(truth(key, value, function)?).is_some(),
            Key::IfExists => self.if_exists.replace(truth(key, value, function)?).is_some(),
        };
        if twice {
            return plan_err!("{function}: option {} is given twice; keep one", key.name());
        }
        Ok(())
    }

    /// The options as a string that [`parse`](Self::parse) reads.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut put = |key: Key, value: Option<String>| {
            if let Some(value) = value {
                let comma = if text.is_empty() { "" } else { ", " };
                write!(text, "{comma}{}={value}", key.name()).expect("a string can be written to");
            }
        };
        put(Key::Metric, self.metric.map(|metric| metric.to_string()));
        put(Key::M, self.m.map(|m| m.to_string()));
        put(Key::EfConstruction, self.ef_construction.map(|ef| ef.to_string()));
        put(Key::EfSearch, self.ef_search.map(|ef| ef.to_string()));
        put(Key::Seed, self.seed.map(|seed| seed.to_string()));
        put(Key::Stored, self.stored.map(|stored| stored.to_string()));
        put(Key::Threads, self.threads.map(|threads| threads.to_string()));
        put(Key::Name, self.name.as_deref().map(quoted));
        put(Key::IfNotExists, self.if_not_exists.map(|yes| yes.to_string()));
        put(Key::IfExists, self.if_exists.map(|yes| yes.to_string()));
        text
    }
}

/// Whether a table function's argument is an options string and not a name.
pub fn is_option_list(text: &str) -> bool {
    text.contains('=')
}

fn describe(keys: &[Key]) -> String {
    let described: Vec<_> = keys
        .iter()
        .map(|key| format!("{} ({})", key.name(), key.values()))
        .collect();
    described.join(", ")
}

fn not_a_pair(part: &str, function: &str, keys: &[Key]) -> datafusion::error::DataFusionError {
    let described = describe(keys);
    datafusion::common::plan_datafusion_err!(
        "{function}: expected key=value, found '{part}'; the options are {described}"
    )
}

/// The metric of this name, if queries can order by it.
///
/// # Errors
///
/// Names the metrics that there are.
pub(crate) fn metric(value: &str, function: &str) -> Result<VectorMetric> {
    let Ok(metric) = value.parse::<VectorMetric>() else {
        return plan_err!(
            "{function}: there is no metric '{value}'; metric is {}",
            metric_names()
        );
    };
    ordered_by(metric, function)?;
    Ok(metric)
}

/// The distance in SQL that orders by this metric. An index of a metric without one would never be used.
///
/// # Errors
///
/// Names the metrics that queries can order by.
pub(crate) fn ordered_by(metric: VectorMetric, function: &str) -> Result<Distance> {
    match (Distance::of_metric(metric), metric) {
        (Some(distance), _) => Ok(distance),
        (None, VectorMetric::NormalizedCosine) => plan_err!(
            "{function}: no SQL function orders by metric '{metric}'; use metric = '{}', whose neighbors are the \
             same where all vectors have length 1",
            VectorMetric::Cosine
        ),
        (None, _) => plan_err!(
            "{function}: no SQL function orders by metric '{metric}'; metric is {}",
            metric_names()
        ),
    }
}

fn stored(value: &str, function: &str) -> Result<StoredVectors> {
    match value.parse() {
        Ok(stored) => Ok(stored),
        Err(_) => plan_err!(
            "{function}: stored = '{value}' is none of its values; stored is {}",
            Key::Stored.values()
        ),
    }
}

fn whole<N: TryFrom<u64>>(key: Key, value: &str, function: &str) -> Result<N> {
    let number = value
        .parse()
        .ok()
        .filter(|number| key.range().is_some_and(|range| range.contains(number)));
    match number.and_then(|number| N::try_from(number).ok()) {
        Some(number) => Ok(number),
        None => plan_err!(
            "{function}: {} = {value} is out of range; {0} is {}",
            key.name(),
            key.values()
        ),
    }
}

fn truth(key: Key, value: &str, function: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => plan_err!("{function}: {} is {}, not '{value}'", key.name(), key.values()),
    }
}

fn name(value: &str, function: &str) -> Result<String> {
    if value.is_empty() {
        return plan_err!("{function}: name is empty; give a name or leave the option out");
    }
    Ok(value.to_string())
}

/// The value as [`pairs`] reads it back.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if value.chars().all(plain) {
        value.to_string()
    } else {
        format!("\"{}\"", value.replace('"', "\"\""))
    }
}

/// Splits the text into keys and unquoted values; the error is the part that is no pair.
fn pairs(text: &str) -> std::result::Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let part = || rest.split(',').next().unwrap_or(rest).trim().to_string();
        let (key, behind) = rest.split_once('=').ok_or_else(part)?;
        let key = key.trim();
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(part());
        }
        let behind = behind.trim_start();
        let (value, behind) = match behind.chars().next() {
            Some(quote @ ('\'' | '"')) => quoted_value(&behind[1..], quote).ok_or_else(part)?,
            _ => {
                let (value, _) = behind.split_once(',').unwrap_or((behind, ""));
                (value.trim().to_string(), &behind[value.len()..])
            }
        };
        let behind = behind.trim_start();
        pairs.push((key.to_string(), value));
        rest = match behind.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if behind.is_empty() => behind,
            None => return Err(part()),
        };
    }
    Ok(pairs)
}

/// The value up to its closing quote, and what stands behind it.
fn quoted_value(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once(quote)?;
        value.push_str(before);
        match behind.strip_prefix(quote) {
            Some(doubled) => {
                value.push(quote);
                rest = doubled;
            }
            None => return Some((value, behind)),
        }
    }
}

#[cfg(test)]
mod tests;
