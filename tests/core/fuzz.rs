//! Broken sidecars by the thousand. `HNSW_FUZZ` says how many (`HNSW_FUZZ_FROM`: which number is the first).

use std::panic::{AssertUnwindSafe, catch_unwind};

use datafusion_hnsw::format::HnswSerializer;
use datafusion_hnsw::hnsw::{HnswConfig, StoredVectors, VectorMetric};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use crate::bytes::try_everything;
use crate::common::{build, clustered};

/// Where the header's checksum lies, and the first byte after the header.
const CHECKSUM: usize = 4 + 248;
const BODY: usize = 320;
/// Numbers that are likelier than others to be a limit of something.
const EDGES: [u32; 10] = [
    0,
    1,
    2,
    31,
    32,
    255,
    1 << 16,
    i32::MAX as u32,
    u32::MAX - 1,
    u32::MAX,
];

fn seeds() -> Vec<Vec<u8>> {
    let kinds = [
        (40, VectorMetric::Euclidean, 20, StoredVectors::F32),
        (40, VectorMetric::Cosine, 18, StoredVectors::F16),
        (40, VectorMetric::DotProduct, 24, StoredVectors::None),
        (40, VectorMetric::Euclidean, 3, StoredVectors::F32),
        // Enough rows for cells.
        (530, VectorMetric::Euclidean, 17, StoredVectors::None),
    ];
    let sidecar = |(rows, metric, dim, stored)| {
        let mut data = clustered(rows, dim, 31, 1);
        data[9] = data[4].clone();
        data[11] = vec![0.0; dim];
        let config = HnswConfig {
            m: 2,
            stored,
            ..HnswConfig::default()
        };
        HnswSerializer::to_bytes(&build(&data, metric, config))
    };
    kinds.map(sidecar).into()
}

/// One broken sidecar: a few words or bits changed, and often the header's checksum made to agree.
fn broken(seed: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = match random.random_range(0..4) {
            0 => random.random_range(12..CHECKSUM),
            1 => bytes.len() - 1 - random.random_range(0..bytes.len().min(1500)),
            _ => random.random_range(BODY..bytes.len()),
        };
        match random.random_range(0..3) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            _ => {
                let word = *EDGES.choose(random).expect("some");
                let word = if random.random() {
                    word
                } else {
                    random.random_range(0..64)
                };
                let at = (at & !3).min(bytes.len() - 4);
                bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    if random.random_range(0..8) > 0 {
        let checksum = xxh3_64(&bytes[4..CHECKSUM]);
        bytes[CHECKSUM..CHECKSUM + 8].copy_from_slice(&checksum.to_le_bytes());
    }
    if random.random_range(0..16) == 0 {
        bytes.truncate(random.random_range(0..bytes.len()));
    }
    bytes
}

#[test]
fn no_broken_sidecar_panics_or_hangs() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    };
    let (count, first) = (number("HNSW_FUZZ", 3000), number("HNSW_FUZZ_FROM", 0));
    let seeds = seeds();
    for input in first..first + count {
        let mut random = StdRng::seed_from_u64(input);
        let bytes = broken(seeds.choose(&mut random).expect("some"), &mut random);
        let tried = catch_unwind(AssertUnwindSafe(|| try_everything(&bytes)));
        assert!(
            tried.is_ok(),
            "input {input}: run again with HNSW_FUZZ_FROM={input} HNSW_FUZZ=1"
        );
    }
}
