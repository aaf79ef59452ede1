//! What a build promises: its settings, its bytes, its progress.

use std::ops::ControlFlow;

use datafusion_hnsw::format::HnswSerializer;
use datafusion_hnsw::hnsw::{
    BuildPhase, HnswBuilder, HnswConfig, SearchOptions, SearchStrategy, StoredVectors, VectorMetric,
};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::loader::MmapLoader;

use crate::common::{Vectors, build, clustered, nearest, share, uniform};

#[test]
fn vectors_may_be_stored_as_halves_or_not_at_all() {
    let (data, queries) = (clustered(1500, 40, 21, 1), clustered(40, 40, 21, 2));
    for metric in VectorMetric::ALL {
        for stored in [StoredVectors::F16, StoredVectors::None] {
            let config = HnswConfig {
                stored,
                ..HnswConfig::default()
            };
            let index = build(&data, metric, config);
            let mapped = MmapLoader::from_bytes(&HnswSerializer::to_bytes(&index)).unwrap();
            assert!(!mapped.has_vectors());
            assert_eq!(
                mapped.vector(RowId::new(0)).is_some(),
                stored == StoredVectors::F16
            );
            let mut sum = 0.0;
            for query in &queries {
                // Codes tell near from far, not first from second: ask for more than wanted.
                let hits = mapped.search(query, &SearchOptions::new(20).ef(64)).unwrap().hits;
                let rows: Vec<RowId> = hits.iter().map(|hit| hit.row).collect();
                sum += share(&rows, &nearest(&data, metric, query, 10, None));
                let exact = datafusion_hnsw::hnsw::exact::distance_f64(
                    metric,
                    &query.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(),
                    &data[rows[0].get() as usize],
                );
                let off = (f64::from(hits[0].distance) - exact.unwrap()).abs();
                assert!(
                    off < 0.05 * (1.0 + exact.unwrap().abs()),
                    "{metric} {stored}: off by {off}"
                );
            }
            assert!(
                sum / 40.0 >= 0.97,
                "{metric} {stored}, seed 21: recall {}",
                sum / 40.0
            );
        }
    }
}

#[test]
fn rows_may_come_in_any_order_but_only_once() {
    let data = uniform(200, 8, 23);
    let forward = HnswSerializer::to_bytes(&build(&data, VectorMetric::Euclidean, HnswConfig::default()));
    let mut builder = HnswBuilder::new(8, VectorMetric::Euclidean, HnswConfig::default());
    for (row, vector) in data.iter().enumerate().rev() {
        builder.insert(RowId::new(row as u64), vector.clone()).unwrap();
    }
    assert_eq!(
        forward,
        HnswSerializer::to_bytes(&builder.clone().build().unwrap())
    );
    builder.insert(RowId::new(5), data[5].clone()).unwrap();
    assert!(builder.build().unwrap_err().to_string().contains("row 5"));
}

#[test]
fn the_same_input_gives_the_same_bytes_for_any_number_of_threads() {
    let data = clustered(2500, 32, 25, 1);
    for metric in [VectorMetric::Cosine, VectorMetric::DotProduct] {
        let bytes = [1, 2, 7, 2].map(|threads| {
            let config = HnswConfig {
                threads,
                ..HnswConfig::default()
            };
            HnswSerializer::to_bytes(&build(&data, metric, config))
        });
        assert!(bytes.iter().all(|other| *other == bytes[0]), "{metric}");
    }
    let other = HnswConfig {
        seed: 43,
        ..HnswConfig::default()
    };
    assert_ne!(
        HnswSerializer::to_bytes(&build(&data, VectorMetric::Cosine, other)),
        HnswSerializer::to_bytes(&build(&data, VectorMetric::Cosine, HnswConfig::default())),
    );
}

#[test]
fn settings_out_of_range_are_named() {
    let with = |config: HnswConfig, dim: usize| {
        HnswBuilder::new(dim, VectorMetric::Cosine, config)
            .build()
            .unwrap_err()
            .to_string()
    };
    assert!(
        with(
            HnswConfig {
                m: 0,
                ..HnswConfig::default()
            },
            4
        )
        .contains("m must be between")
    );
    assert!(
        with(
            HnswConfig {
                ef_construction: 0,
                ..HnswConfig::default()
            },
            4
        )
        .contains("ef_construction must be")
    );
    assert!(with(HnswConfig::default(), 0).contains("dimension must be between"));
}

#[test]
fn a_build_can_be_watched_and_cancelled() {
    let mut builder = HnswBuilder::new(16, VectorMetric::Euclidean, HnswConfig::default());
    for (row, vector) in uniform(1000, 16, 27).into_iter().enumerate() {
        builder.insert(RowId::new(row as u64), vector).unwrap();
    }
    let seen = std::sync::Mutex::new(Vec::new());
    builder
        .clone()
        .build_with(&|progress| {
            seen.lock().unwrap().push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().any(|p| p.done == 1000 && p.total == 1000));
    let cancelled = builder.build_with(&|p| {
        if p.done > 100 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(cancelled.unwrap_err().to_string().contains("cancelled"));
}

#[test]
fn a_build_can_be_cancelled_before_it_links() {
    use std::sync::atomic::{AtomicU64, Ordering};
    // With codes and cells, and without.
    for dim in [32, 8] {
        let mut builder = HnswBuilder::new(dim, VectorMetric::Euclidean, HnswConfig::default());
        for (row, vector) in clustered(40_000, dim, 29, 1).iter().enumerate() {
            builder.insert_slice(RowId::new(row as u64), vector).unwrap();
        }
        let calls = AtomicU64::new(0);
        let cancelled = builder.build_with(&|progress| {
            let linked = progress.phase == BuildPhase::Link && progress.done > 0;
            assert!(!linked, "dim {dim}: nothing is linked");
            if calls.fetch_add(1, Ordering::Relaxed) < 5 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        assert!(cancelled.unwrap_err().to_string().contains("cancelled"));
        assert!(calls.into_inner() < 15, "dim {dim}: work goes on");
    }
}

#[test]
fn all_of_a_thin_curve_is_reached_by_few_links() {
    // Thousands of points on a line through space, almost as many of them nearer to each other than codes can tell,
    // and lists that are too short for them: half of the nodes are in nobody's list.
    let vector = |row: usize| (0..8).map(move |axis| ((row * 37 + axis * 11) as f64 * 0.7).sin() as f32);
    let data: Vectors = (0..60_000).map(|row| vector(row).collect()).collect();
    let config = HnswConfig {
        m: 2,
        ef_construction: 8,
        ..HnswConfig::default()
    };
    let index = build(&data, VectorMetric::Euclidean, config);
    assert_eq!(index.unreachable_nodes(), 0);
    let mapped = MmapLoader::from_bytes(&HnswSerializer::to_bytes(&index)).unwrap();
    mapped.verify().unwrap();
    let most = SearchOptions::new(50_000)
        .ef(59_000)
        .strategy(SearchStrategy::Graph);
    let found = mapped.search(&data[7], &most).unwrap();
    assert!(!found.stats.exact);
    assert_eq!(found.hits.len(), 50_000);
}

/// Whoever waits for a build sees it move from its start, in each part that takes time.
#[test]
fn progress_moves_in_every_phase() {
    let rows = 6000;
    let vectors = clustered(rows, 32, 20, 7);
    let config = HnswConfig {
        threads: 1,
        ef_construction: 20,
        ..HnswConfig::default()
    };
    let mut builder = HnswBuilder::new(32, VectorMetric::Euclidean, config);
    for (row, vector) in vectors.into_iter().enumerate() {
        builder.insert(RowId::new(row as u64), vector).expect("a vector");
    }
    let told = std::sync::Mutex::new(Vec::new());
    builder
        .build_with(&|at| {
            told.lock().expect("no panic").push(at);
            ControlFlow::Continue(())
        })
        .expect("built");
    let told = told.into_inner().expect("no panic");
    let of = |phase| {
        let at = told.iter().filter(|at| at.phase == phase);
        at.map(|at| at.done as f64 / at.total as f64)
            .collect::<Vec<f64>>()
    };
    for phase in [BuildPhase::Encode, BuildPhase::Link] {
        let shares = of(phase);
        assert!(shares.is_sorted(), "{phase:?}: {shares:?}");
        // Also when the first report is counted from nothing: no step is larger than an eighth.
        let steps = shares.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(steps.fold(shares[0], f64::max) < 0.125, "{phase:?}: {shares:?}");
        let last = shares.last().copied().unwrap_or_default();
        assert!((0.75..=1.0).contains(&last), "{phase:?}: {last}");
    }
    assert_eq!(of(BuildPhase::Link).last(), Some(&1.0));
}
