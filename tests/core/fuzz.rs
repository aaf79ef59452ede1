//! Broken sidecars by the million, of four kinds, each made to get past the checks in front of what it is to break.
//!
//! `HNSW_FUZZ` says how many of each kind (`HNSW_FUZZ_FROM`: which number is the first). The outcomes of inputs are told
//! apart, and the corpus has a short input for each; `HNSW_FUZZ_KEEP=<folder>` collects such inputs. One that ever did
//! harm belongs there, too.

#[path = "broken.rs"]
mod broken;
#[path = "counting.rs"]
mod counting;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use datafusion_hnsw::format::{FormatError, HnswSerializer, View};
use datafusion_hnsw::hnsw::{HnswConfig, RowSet, SearchOptions, SearchStrategy, StoredVectors, VectorMetric};
use datafusion_hnsw::id::RowId;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::bytes::{Outcome, try_everything};
use crate::common::{build, clustered};

/// No input may take longer, on a busy machine.
const LONG: Duration = Duration::from_secs(10);

/// What an input may allocate besides a multiple of its length: a query of the greatest dimension, its codes, and the
/// set of a million rows that the test itself makes.
const ALLOCATED: usize = 2 << 20;
const ALLOCATED_PER_BYTE: usize = 64;

/// Sidecars of all metrics and kinds of stored vectors, with identical vectors, NULLs, zeros and infinite ones.
fn seeds() -> Vec<Vec<u8>> {
    let kinds = [
        (40, VectorMetric::Euclidean, 20, StoredVectors::F32),
        (40, VectorMetric::Cosine, 18, StoredVectors::F16),
        (40, VectorMetric::DotProduct, 24, StoredVectors::None),
        (40, VectorMetric::Euclidean, 3, StoredVectors::F32),
        (40, VectorMetric::NormalizedCosine, 5, StoredVectors::F32),
        // Enough rows for cells.
        (530, VectorMetric::Euclidean, 17, StoredVectors::None),
        // And for groups of them.
        (8250, VectorMetric::Euclidean, 17, StoredVectors::None),
    ];
    let sidecar = |(rows, metric, dim, stored)| {
        let mut data = clustered(rows, dim, 31, 1);
        data[9] = data[4].clone();
        data[11] = vec![0.0; dim];
        data[12] = vec![f32::INFINITY; dim];
        let config = HnswConfig {
            m: 2,
            stored,
            ..HnswConfig::default()
        };
        HnswSerializer::to_bytes(&build(&data, metric, config))
    };
    kinds.map(sidecar).into()
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/core/corpus")
}

/// Tries a sidecar, watching the time and the memory that it takes.
fn watch(bytes: &[u8]) -> Outcome {
    let begun = Instant::now();
    let (outcome, allocated) = counting::most_allocated(|| try_everything(bytes));
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    assert!(
        allocated <= ALLOCATED + ALLOCATED_PER_BYTE * bytes.len(),
        "{allocated} bytes were allocated for a file of {}",
        bytes.len()
    );
    outcome
}

/// An outcome as the name of a file: words without numbers.
fn name(outcome: &Outcome) -> String {
    let of = |error: &FormatError| match error {
        FormatError::Damaged { section, reason } if reason.contains(" at line ") => {
            format!("{section} not the JSON of a footer")
        }
        FormatError::Damaged { section, reason } => format!("{section} {reason}"),
        other => other.to_string(),
    };
    let text = match outcome {
        Outcome::NotOpened(error) => format!("not opened {}", of(error)),
        Outcome::Refused(error) => format!("refused {error}"),
        Outcome::Damaged(error) => format!("searched {}", of(error)),
        Outcome::Whole => "whole".to_owned(),
    };
    let words = text.split(|c: char| !c.is_ascii_alphabetic());
    let words: Vec<_> = words.filter(|word| word.len() > 1).take(9).collect();
    words.join("-").to_lowercase()
}

/// Tries as many inputs as are asked for, and tells how many ended how.
fn fuzz(
    kind: &str,
    broken: impl Fn(&[u8], &mut StdRng) -> Vec<u8>,
    attempt: impl Fn(&[u8], &mut StdRng) -> String,
) {
    let number = |name: &str, otherwise: u64| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (count, first) = (number("HNSW_FUZZ", 3000), number("HNSW_FUZZ_FROM", 0));
    let (seeds, keep) = (seeds(), std::env::var_os("HNSW_FUZZ_KEEP").map(PathBuf::from));
    let mut outcomes = BTreeMap::<String, u64>::new();
    for input in first..first + count {
        let mut random = StdRng::seed_from_u64(input);
        let bytes = broken(seeds.choose(&mut random).expect("some"), &mut random);
        let tried = catch_unwind(AssertUnwindSafe(|| attempt(&bytes, &mut random)));
        let Ok(outcome) = tried else {
            panic!("{kind}: input {input}: run again with HNSW_FUZZ_FROM={input} HNSW_FUZZ=1")
        };
        if let Some(keep) = &keep {
            let file = keep.join(format!("{outcome}.bin"));
            let there = std::fs::metadata(&file).map_or(u64::MAX, |meta| meta.len());
            if (bytes.len() as u64) < there {
                std::fs::write(file, &bytes).unwrap();
            }
        }
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!(
        "{kind}: {count} inputs, {} outcomes: {outcomes:?}",
        outcomes.len()
    );
}

fn fuzz_everything(kind: &str, broken: impl Fn(&[u8], &mut StdRng) -> Vec<u8>) {
    fuzz(kind, broken, |bytes, _| name(&watch(bytes)));
}

#[test]
fn no_puffin_footer_panics_or_hangs() {
    fuzz_everything("footers", broken::footer);
}

#[test]
fn no_header_and_no_table_of_sections_panics_or_hangs() {
    fuzz_everything("headers and sections", broken::header_and_sections);
}

#[test]
fn no_broken_sidecar_panics_or_hangs() {
    fuzz_everything("sidecars", |good, random| match random.random_range(0..8) {
        0 => broken::sections(good, random),
        1 => broken::length(good, random),
        _ => broken::sidecar(good, random),
    });
}

/// A set of rows that has little to do with the file.
fn any_rows(rows: u64, random: &mut StdRng) -> RowSet {
    let of = match random.random_range(0..4) {
        0 => random.random_range(0..rows + 1),
        1 => rows + random.random_range(0..300),
        _ => rows,
    };
    let mut set = match random.random_range(0..3) {
        0 => RowSet::all(of),
        _ => RowSet::new(of),
    };
    let any = |random: &mut StdRng| RowId::new(random.random_range(0..of + 70));
    for _ in 0..random.random_range(0..60) {
        let row = any(random);
        match random.random_range(0..4) {
            0 => set.remove(row),
            1 => set.insert_range(row, any(random)),
            _ => set.insert(row),
        }
    }
    match random.random_range(0..4) {
        0 => set.intersect(&RowSet::all(random.random_range(0..of + 1))),
        1 => set.union(&[any(random), any(random)].into_iter().collect()),
        _ => {}
    }
    assert_eq!(set.count(), set.iter().count() as u64);
    assert!(set.iter().all(|row| set.contains(row) && row.get() < of));
    set
}

/// A search for any rows, in any way, gives none but these; of a whole sidecar, as many as there are.
fn filtered(bytes: &[u8], random: &mut StdRng) -> String {
    let Ok(view) = View::open(bytes) else {
        return "filtered-not-opened".to_owned();
    };
    let allowed = any_rows(view.rows().min(1 << 16), random);
    let ways = [
        SearchStrategy::Auto,
        SearchStrategy::Exact,
        SearchStrategy::Codes,
        SearchStrategy::Graph,
        SearchStrategy::Clusters,
    ];
    let way = *ways.choose(random).unwrap();
    let sizes = [0, 1, 5, 40, 1 << 32, usize::MAX];
    let (k, ef) = (sizes.choose(random).unwrap(), sizes.choose(random).unwrap());
    let mut options = SearchOptions::new(*k).ef(*ef).allowed(&allowed).strategy(way);
    if random.random() {
        options = options.tie_margin();
    }
    let query: Vec<f32> = (0..view.dim()).map(|_| random.random_range(-1.0..1.0)).collect();
    let begun = Instant::now();
    let (found, allocated) = counting::most_allocated(|| view.search(&query, &options));
    let within = view.range(&query, 0.5, 7, Some(&allowed));
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    let most = ALLOCATED + ALLOCATED_PER_BYTE * (bytes.len() + allowed.rows() as usize);
    assert!(
        allocated <= most,
        "{allocated} bytes for a file of {}",
        bytes.len()
    );
    if random.random_range(0..64) == 0 {
        let twice = view.search_batch(&query.repeat(2), &options);
        assert_eq!(twice.is_ok(), found.is_ok());
    }
    let is_whole = view.verify().is_ok();
    for hits in [&found, &within]
        .into_iter()
        .flatten()
        .map(|outcome| &outcome.hits)
    {
        assert!(
            hits.iter().all(|hit| allowed.contains(hit.row)),
            "a row that is not allowed"
        );
        assert!(
            hits.windows(2)
                .all(|two| two[0].distance.total_cmp(&two[1].distance).is_le()),
            "out of order"
        );
    }
    let Ok(found) = found else {
        assert!(!is_whole, "{found:?}");
        return "filtered-refused".to_owned();
    };
    if is_whole {
        let lists = view
            .null_rows()
            .chain(view.zero_rows())
            .chain(view.unindexable_rows());
        let others: RowSet = lists.collect();
        let there = allowed
            .iter()
            .filter(|row| row.get() < view.rows() && !others.contains(*row))
            .count();
        let hits = found.hits.len();
        let few = hits < there.min(*k) || (!options.tie_margin && hits > *k);
        assert!(!few, "{hits} of {there} rows for {options:?}");
    }
    let exact = if found.stats.exact { "exact" } else { "near" };
    format!(
        "filtered-{way:?}-{exact}{}",
        if is_whole { "" } else { "-in-broken" }
    )
    .to_lowercase()
}

#[test]
fn no_set_of_rows_panics_or_lets_another_row_through() {
    let broken = |good: &[u8], random: &mut StdRng| match random.random() {
        true => good.to_vec(),
        false => broken::sections(good, random),
    };
    fuzz("filters", broken, filtered);
}

#[test]
fn the_corpus_ends_as_it_always_did() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let expected = file.file_stem().unwrap().to_str().unwrap();
        // The words of an error may change, but not what kind of outcome it is.
        let kind = |name: &str| name.split('-').next().map(str::to_owned);
        assert_eq!(kind(&name(&watch(&bytes))), kind(expected), "{expected}");
        for seed in 0..50 {
            filtered(&bytes, &mut StdRng::seed_from_u64(seed));
        }
    }
}
