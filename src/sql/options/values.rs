//! What the settings may be set to: `SET hnsw.m = 1` fails at once and says what would do.

use std::ops::RangeInclusive;
use std::path::MAIN_SEPARATOR;

use datafusion::error::{DataFusionError, Result};

use crate::hnsw::{EF_CONSTRUCTION_RANGE, M_RANGE, VectorMetric};

/// Values of `ef_search`; more than the rows of a file means all of them.
pub(crate) const EF_SEARCH_RANGE: RangeInclusive<usize> = 1..=u32::MAX as usize;

/// Values of `threads`; 0 means all cores.
pub(crate) const THREADS_RANGE: RangeInclusive<usize> = 0..=1024;

/// The value as the setting keeps it: metrics by the name that this crate gives them, sizes in bytes, `~` as the home
/// directory.
///
/// # Errors
///
/// Says what the setting may be. Settings that check their values themselves are left to it.
pub(super) fn accepted(key: &str, value: &str) -> Result<String> {
    match key {
        "metric" => match value.parse::<VectorMetric>() {
            Ok(metric) => Ok(metric.name().to_owned()),
            Err(error) => Err(DataFusionError::Configuration(format!("hnsw.metric: {error}"))),
        },
        "m" => whole(key, value, &M_RANGE),
        "ef_construction" => whole(key, value, &EF_CONSTRUCTION_RANGE),
        "ef_search" => whole(key, value, &EF_SEARCH_RANGE),
        "threads" => whole(key, value, &THREADS_RANGE),
        "seed" => match value.trim().parse::<u64>() {
            Ok(seed) => Ok(seed.to_string()),
            Err(_) => Err(cannot_be(
                key,
                value,
                &format!("use a whole number from 0 to {}", u64::MAX),
            )),
        },
        "cache_size" | "filter_cache_size" | "column_cache_size" => match bytes(value) {
            Some(bytes) => Ok(bytes.to_string()),
            None => Err(cannot_be(
                key,
                value,
                "use a number of bytes, or one with a unit (powers of 1,024): 1048576, '512 KB', '1M', '1.5 GiB'",
            )),
        },
        "sidecar_dir" | "cache_dir" => directory(key, value),
        _ => Ok(value.to_owned()),
    }
}

fn cannot_be(key: &str, value: &str, instead: &str) -> DataFusionError {
    DataFusionError::Configuration(format!("hnsw.{key} cannot be '{value}'; {instead}"))
}

fn whole(key: &str, value: &str, range: &RangeInclusive<usize>) -> Result<String> {
    match value.trim().parse::<usize>() {
        Ok(number) if range.contains(&number) => Ok(number.to_string()),
        _ => Err(cannot_be(
            key,
            value,
            &format!("use a whole number from {} to {}", range.start(), range.end()),
        )),
    }
}

/// Reads `4096`, `512 KB`, `1M`, `1.5 GiB`. A unit is a power of 1,024 with and without the `i`.
fn bytes(value: &str) -> Option<usize> {
    let lower = value.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let unit = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let unit = 1_usize.checked_shl(unit)?;
    match number.split_once('.') {
        None => number.parse::<usize>().ok()?.checked_mul(unit),
        Some((whole, fraction)) => {
            // Up to nine places are enough for sizes; more would not fit the product.
            if fraction.is_empty() || fraction.len() > 9 || unit == 1 {
                return None;
            }
            let places = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
            let part = fraction.parse::<u128>().ok()? * unit as u128 / places;
            let whole = whole.parse::<usize>().ok()?.checked_mul(unit)?;
            whole.checked_add(usize::try_from(part).ok()?)
        }
    }
}

/// The shell of a terminal replaces `~`; nobody does so inside of a statement.
fn directory(key: &str, value: &str) -> Result<String> {
    let Some(rest) = value.strip_prefix('~') else {
        return Ok(value.to_owned());
    };
    if !rest.is_empty() && !rest.starts_with(['/', MAIN_SEPARATOR]) {
        return Err(cannot_be(
            key,
            value,
            &format!(
                "only your own home directory can be written as ~; write the whole path, or ./{value} for a directory of this name"
            ),
        ));
    }
    let home = std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .and_then(|home| home.to_str().map(str::to_owned))
        .ok_or_else(|| {
            cannot_be(
                key,
                value,
                "the home directory is not known; write the whole path",
            )
        })?;
    Ok(format!("{}{rest}", home.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("1k", 1024),
            ("1 KiB", 1024),
            ("1M", 1 << 20),
            ("64mb", 64 << 20),
            (" 10 GiB ", 10 << 30),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "1x",
            "1 m b",
            "1.5",
            ".5g",
            "1.g",
            "1.2.3g",
            "99999999999999999999",
            "99999999t",
            "1e9",
            "inf",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_the_range() {
        for (key, value, told) in [
            ("m", "1", "2 to 128"),
            ("m", "129", "2 to 128"),
            ("m", "-2", "2 to 128"),
            ("ef_search", "0", "1 to 4294967295"),
            ("ef_construction", "0", "1 to 10000"),
            ("ef_construction", "10001", "1 to 10000"),
            ("threads", "1025", "0 to 1024"),
            ("seed", "-1", "0 to 18446744073709551615"),
            ("cache_size", "-1", "bytes"),
            ("metric", "foo", "cosine"),
            ("sidecar_dir", "~nobody/x", "whole path"),
        ] {
            let error = accepted(key, value).expect_err(value).to_string();
            assert!(
                error.contains(&format!("hnsw.{key}")) && error.contains(value) && error.contains(told),
                "{error}"
            );
        }
    }
}
