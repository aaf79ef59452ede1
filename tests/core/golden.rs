//! Sidecars written long ago still open and answer as they did, and the same rows still give the same bytes.
//!
//! `HNSW_BLESS=1 cargo test --test core golden` writes the files anew: only for a new format version, or when
//! the builder is meant to build another graph. Keep some of the files before under another name then.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use datafusion_hnsw::format::{HnswSerializer, View};
use datafusion_hnsw::hnsw::{
    HnswBuilder, HnswConfig, RowSet, SearchOptions, SearchStrategy, StoredVectors, VectorMetric,
};
use datafusion_hnsw::id::RowId;

const DIM: usize = 20;
const ROWS: u64 = 90;
/// Enough for cells.
const MANY_ROWS: u64 = 560;

/// Numbers that look random, are exact in f32, and depend on no crate.
fn vector(row: u64) -> Vec<f32> {
    (0..DIM as u64)
        .map(|i| {
            let x = (row * 64 + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((x >> 40) as i32 - (1 << 23)) as f32 / (1 << 22) as f32 + (row % 3) as f32
        })
        .collect()
}

/// With a NULL, a zero vector, one that is not finite, and identical ones.
fn bytes(rows: u64, metric: VectorMetric, stored: StoredVectors) -> Vec<u8> {
    let config = HnswConfig {
        m: 4,
        stored,
        ..HnswConfig::default()
    };
    let mut builder = HnswBuilder::new(DIM, metric, config);
    for row in 0..rows {
        let id = RowId::new(row);
        match row {
            5 => builder.insert_null(id),
            6 => builder.insert(id, vec![0.0; DIM]),
            7 => builder.insert(id, vec![f32::INFINITY; DIM]),
            8..11 => builder.insert(id, vector(1)),
            _ => builder.insert(id, vector(row)),
        }
        .unwrap();
    }
    HnswSerializer::to_bytes(&builder.build().unwrap())
}

/// The rows and the bits of their distances.
fn answers(bytes: &[u8]) -> String {
    let view = View::open(bytes).unwrap();
    view.verify().unwrap();
    let mut text = String::new();
    let third: RowSet = (0..view.rows()).step_by(3).map(RowId::new).collect();
    let plain = SearchOptions::new(5).ef(12).strategy(SearchStrategy::Graph);
    let filtered = plain.allowed(&third).strategy(SearchStrategy::Clusters);
    let searches = (1000..1010).map(|query| (query, &plain));
    let with_cells = (1000..1010).filter(|_| view.rows() == MANY_ROWS);
    for (query, options) in searches.chain(with_cells.map(|query| (query, &filtered))) {
        let hits = view.search(&vector(query), options).unwrap().hits;
        for hit in hits {
            write!(text, "{} {:08x}, ", hit.row.get(), hit.distance.to_bits()).unwrap();
        }
        text.push('\n');
    }
    text
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/core/golden")
}

/// Builders of today choose other links, and round to codes in another way.
#[test]
fn sidecars_of_builders_before_open_and_answer_as_ever() {
    for name in ["cosine-1", "cells-1"] {
        let golden = fs::read(folder().join(format!("{name}.hnsw"))).unwrap();
        let text = fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
        assert_eq!(answers(&golden), text, "{name}");
    }
}

#[test]
fn golden_sidecars_open_answer_and_are_built_as_ever() {
    let kinds = [
        ("cosine", ROWS, VectorMetric::Cosine, StoredVectors::F32),
        ("l2", ROWS, VectorMetric::Euclidean, StoredVectors::F32),
        ("l2-f16", ROWS, VectorMetric::Euclidean, StoredVectors::F16),
        ("ip-none", ROWS, VectorMetric::DotProduct, StoredVectors::None),
        ("cells", MANY_ROWS, VectorMetric::Cosine, StoredVectors::None),
    ];
    for (name, rows, metric, stored) in kinds {
        let (file, text) = (
            folder().join(format!("{name}.hnsw")),
            folder().join(format!("{name}.txt")),
        );
        let built = bytes(rows, metric, stored);
        if std::env::var_os("HNSW_BLESS").is_some() {
            fs::write(&file, &built).unwrap();
            fs::write(&text, answers(&built)).unwrap();
        }
        let golden = fs::read(&file).unwrap();
        assert_eq!(answers(&golden), fs::read_to_string(&text).unwrap(), "{name}");
        assert!(built == golden, "{name}: the same rows give other bytes");
    }
}
