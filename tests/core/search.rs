//! What a search finds.

use std::sync::atomic::{AtomicBool, Ordering};

use datafusion_hnsw::format::HnswSerializer;
use datafusion_hnsw::hnsw::{
    HnswBuilder, HnswConfig, RowSet, SearchError, SearchOptions, SearchStrategy, StoredVectors, VectorMetric,
};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::loader::MmapLoader;

use crate::common::{Vectors, build, clustered, nearest, share, uniform};

/// The project's first promise, with its names.
#[test]
fn two_vectors_make_the_round_trip() {
    let mut builder = HnswBuilder::new(4, VectorMetric::Cosine, HnswConfig::default());
    builder.insert(RowId::new(0), vec![1.0, 0.0, 0.0, 0.0]).unwrap();
    builder.insert(RowId::new(1), vec![0.0, 1.0, 0.0, 0.0]).unwrap();
    let index = builder.build().unwrap();
    let bytes = HnswSerializer::to_bytes(&index);
    let mapped = MmapLoader::from_bytes(&bytes).unwrap();
    assert_eq!(mapped.node_count(), 2);
    assert_eq!(mapped.dim(), 4);
    let outcome = mapped
        .search(&[1.0, 0.0, 0.0, 0.0], &SearchOptions::new(1))
        .unwrap();
    assert_eq!(outcome.hits[0].row, RowId::new(0));
    assert_eq!(outcome.hits[0].distance, 0.0);
    let again = HnswSerializer::from_bytes(&bytes).unwrap();
    assert_eq!(again.search(&[0.0, 1.0, 0.0, 0.0], 1, 10), [(RowId::new(1), 0.0)]);
}

fn recall(data: &Vectors, queries: &Vectors, metric: VectorMetric, config: HnswConfig, ef: usize) -> f64 {
    let index = build(data, metric, config);
    assert_eq!(index.unreachable_nodes(), 0);
    let mapped = MmapLoader::from_bytes(&HnswSerializer::to_bytes(&index)).unwrap();
    mapped.verify().unwrap();
    let mut sum = 0.0;
    for query in queries {
        let found = mapped.search(query, &SearchOptions::new(10).ef(ef)).unwrap();
        let in_memory = index.search_with(query, &SearchOptions::new(10).ef(ef)).unwrap();
        assert_eq!(found, in_memory, "mapped and in-memory answers are equal");
        let rows: Vec<RowId> = found.hits.iter().map(|hit| hit.row).collect();
        assert_eq!(rows.len(), 10);
        sum += share(&rows, &nearest(data, metric, query, 10, None));
    }
    sum / queries.len() as f64
}

#[test]
fn recall_at_10_stays_high_on_clustered_data_under_every_metric() {
    let (data, queries) = (clustered(4000, 48, 7, 1), clustered(60, 48, 7, 2));
    for metric in VectorMetric::ALL {
        let recall = recall(&data, &queries, metric, HnswConfig::default(), 64);
        println!("clustered, seed 7, {metric}: recall {recall}");
        assert!(recall >= 0.95, "clustered, seed 7, {metric}: recall {recall}");
    }
}

#[test]
fn recall_at_10_stays_high_on_uniform_data_under_every_metric() {
    let (data, queries) = (uniform(3000, 24, 3), uniform(60, 24, 4));
    for metric in VectorMetric::ALL {
        let recall = recall(&data, &queries, metric, HnswConfig::default(), 100);
        println!("uniform, seed 3, {metric}: recall {recall}");
        assert!(recall >= 0.95, "uniform, seed 3, {metric}: recall {recall}");
    }
}

#[test]
fn recall_at_10_stays_high_for_short_vectors() {
    for dim in [1, 2, 3, 8] {
        let (data, queries) = (uniform(2000, dim, 5), uniform(40, dim, 6));
        let recall = recall(
            &data,
            &queries,
            VectorMetric::Euclidean,
            HnswConfig::default(),
            64,
        );
        assert!(recall >= 0.97, "uniform, dim {dim}, seed 5: recall {recall}");
    }
}

#[test]
fn recall_at_10_holds_for_inner_products_of_vectors_of_many_lengths() {
    let mut data = clustered(4000, 48, 9, 1);
    for (i, vector) in data.iter_mut().enumerate() {
        let length = 0.25 + (i * 2654435761 % 1000) as f32 / 250.0;
        vector.iter_mut().for_each(|x| *x *= length);
    }
    let queries = clustered(60, 48, 9, 2);
    let recall = recall(
        &data,
        &queries,
        VectorMetric::DotProduct,
        HnswConfig::default(),
        64,
    );
    assert!(recall >= 0.95, "un-normalised, seed 9: recall {recall}");
}

#[test]
fn a_search_with_as_many_candidates_as_nodes_is_exact() {
    let (data, queries) = (clustered(700, 33, 11, 1), clustered(30, 33, 11, 2));
    for metric in VectorMetric::ALL {
        let index = build(&data, metric, HnswConfig::default());
        for query in &queries {
            let outcome = index.search_with(query, &SearchOptions::new(12).ef(700)).unwrap();
            assert!(outcome.stats.exact);
            let rows: Vec<RowId> = outcome.hits.iter().map(|hit| hit.row).collect();
            assert_eq!(share(&rows, &nearest(&data, metric, query, 12, None)), 1.0);
        }
    }
}

#[test]
fn a_search_for_much_of_the_data_looks_at_all_of_it_and_is_exact() {
    let (data, queries) = (clustered(4000, 33, 45, 1), clustered(5, 33, 45, 2));
    let even: RowSet = (0..4000).step_by(2).map(RowId::new).collect();
    for stored in [StoredVectors::F32, StoredVectors::F16, StoredVectors::None] {
        let config = HnswConfig {
            stored,
            ..HnswConfig::default()
        };
        let index = build(&data, VectorMetric::Euclidean, config);
        let exact = |options: &SearchOptions<'_>| {
            let found = queries
                .iter()
                .map(|query| index.search_with(query, options).unwrap());
            found.map(|found| found.stats.exact).collect::<Vec<_>>()
        };
        let (few, many) = (SearchOptions::new(10).ef(64), SearchOptions::new(1500).ef(3000));
        assert_eq!(exact(&few), [false; 5], "{stored}");
        assert_eq!(exact(&many), [true; 5], "{stored}: 1500 of 4000 rows");
        assert_eq!(
            exact(&many.strategy(SearchStrategy::Graph)),
            [false; 5],
            "{stored}"
        );
        assert_eq!(exact(&few.strategy(SearchStrategy::Exact)), [true; 5], "{stored}");
        assert_eq!(exact(&few.allowed(&even)), [false; 5], "{stored}");
        let some = SearchOptions::new(500).ef(1000).allowed(&even);
        assert_eq!(exact(&some), [true; 5], "{stored}: 500 of 2000 rows");
    }
}

#[test]
fn identical_vectors_share_a_node_and_all_their_rows_are_found() {
    let mut data = clustered(500, 32, 13, 1);
    data.extend(std::iter::repeat_n(data[42].clone(), 5000));
    let index = build(&data, VectorMetric::Cosine, HnswConfig::default());
    assert_eq!((index.node_count(), index.row_count()), (500, 5500));
    let found = index.search(&data[42], 5001, 64);
    assert_eq!(found.len(), 5001);
    assert_eq!(found[0].0, RowId::new(42), "ties go to the lower row");
    assert!(found.iter().all(|&(row, _)| row.get() == 42 || row.get() >= 500));
    let mapped = MmapLoader::from_bytes(&HnswSerializer::to_bytes(&index)).unwrap();
    mapped.verify().unwrap();
    let some = mapped.search(&data[42], &SearchOptions::new(10)).unwrap();
    assert_eq!(some.hits.len(), 10);
}

/// Many rows of many clusters: a graph that does not lead to the long vectors passes with a few thousand.
#[test]
fn recall_at_10_holds_for_inner_products_of_many_rows() {
    let rows = if cfg!(debug_assertions) { 4000 } else { 30_000 };
    let mut data = Vec::new();
    for part in 0..10 {
        data.extend(clustered(rows / 10, 96, 100 + part, 1));
    }
    for (i, vector) in data.iter_mut().enumerate() {
        let length = ((i * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0).exp();
        vector.iter_mut().for_each(|x| *x *= length);
    }
    let queries: Vectors = (0..10)
        .flat_map(|part| clustered(10, 96, 100 + part, 2))
        .collect();
    let recall = recall(
        &data,
        &queries,
        VectorMetric::DotProduct,
        HnswConfig::default(),
        64,
    );
    println!("inner products, {rows} rows: recall {recall}");
    assert!(recall >= 0.9, "inner products, {rows} rows: recall {recall}");
}

#[test]
fn thirty_percent_duplicates_cost_no_recall() {
    let mut data = clustered(3000, 32, 15, 1);
    for i in 0..900 {
        data[2100 + i] = data[i].clone();
    }
    let queries = clustered(50, 32, 15, 2);
    let index = build(&data, VectorMetric::Euclidean, HnswConfig::default());
    assert_eq!(index.unreachable_nodes(), 0);
    let mut sum = 0.0;
    for query in &queries {
        let found: Vec<RowId> = index
            .search(query, 10, 64)
            .into_iter()
            .map(|(row, _)| row)
            .collect();
        sum += share(&found, &nearest(&data, VectorMetric::Euclidean, query, 10, None));
    }
    assert!(sum / 50.0 >= 0.95, "seed 15: recall {}", sum / 50.0);
}

#[test]
fn clusters_far_apart_are_all_reached() {
    let mut data = clustered(3000, 24, 17, 1);
    for (i, vector) in data.iter_mut().enumerate() {
        vector
            .iter_mut()
            .for_each(|x| *x = *x * 0.01 + 1000.0 * (i % 7) as f32);
    }
    let queries: Vectors = data.iter().step_by(61).cloned().collect();
    let recall = recall(
        &data,
        &queries,
        VectorMetric::Euclidean,
        HnswConfig::default(),
        64,
    );
    assert!(recall >= 0.95, "seed 17: recall {recall}");
}

#[test]
fn rows_without_a_place_in_the_graph_are_listed() {
    let mut builder = HnswBuilder::new(3, VectorMetric::Cosine, HnswConfig::default());
    builder.insert_null(RowId::new(0)).unwrap();
    builder.insert(RowId::new(1), vec![0.0, -0.0, 0.0]).unwrap();
    builder.insert(RowId::new(2), vec![f32::NAN, 1.0, 0.0]).unwrap();
    builder.insert(RowId::new(3), vec![1.0, 2.0, 3.0]).unwrap();
    builder.insert(RowId::new(4), vec![1e-20, 0.0, 0.0]).unwrap();
    builder
        .insert(RowId::new(5), vec![f32::INFINITY, 0.0, 0.0])
        .unwrap();
    builder.insert_null(RowId::new(6)).unwrap();
    let mapped = MmapLoader::from_bytes(&HnswSerializer::to_bytes(&builder.build().unwrap())).unwrap();
    let list = |rows: &mut dyn Iterator<Item = RowId>| rows.map(RowId::get).collect::<Vec<_>>();
    assert_eq!(list(&mut mapped.null_rows()), [0, 6]);
    assert_eq!(list(&mut mapped.zero_rows()), [1]);
    assert_eq!(list(&mut mapped.unindexable_rows()), [2, 4, 5]);
    assert_eq!((mapped.rows(), mapped.node_count()), (7, 1));
    assert!(mapped.vector(RowId::new(2)).unwrap()[0].is_nan());
    assert_eq!(
        mapped.vector(RowId::new(1)).unwrap()[1].to_bits(),
        (-0.0f32).to_bits()
    );
    assert_eq!(*mapped.vector(RowId::new(3)).unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(mapped.vector(RowId::new(0)), None);
    assert_eq!(mapped.vector(RowId::new(7)), None);
    assert_eq!(
        mapped
            .search(&[1.0, 0.0, 0.0], &SearchOptions::new(5))
            .unwrap()
            .hits
            .len(),
        1
    );
}

#[test]
fn an_index_of_nulls_only_answers_with_nothing() {
    let mut builder = HnswBuilder::new(3, VectorMetric::Euclidean, HnswConfig::default());
    builder.insert_null(RowId::new(0)).unwrap();
    let mapped = MmapLoader::from_bytes(&HnswSerializer::to_bytes(&builder.build().unwrap())).unwrap();
    mapped.verify().unwrap();
    let outcome = mapped.search(&[1.0, 0.0, 0.0], &SearchOptions::new(5)).unwrap();
    assert!(outcome.hits.is_empty() && outcome.stats.exact);
}

#[test]
fn queries_that_have_no_answer_say_why() {
    let index = build(&uniform(10, 3, 1), VectorMetric::Cosine, HnswConfig::default());
    let ask = |query: &[f32]| index.search_with(query, &SearchOptions::new(1)).unwrap_err();
    assert_eq!(
        ask(&[1.0]),
        SearchError::Dimension {
            expected: 3,
            found: 1
        }
    );
    assert_eq!(ask(&[f32::NAN, 0.0, 0.0]), SearchError::OutOfRange);
    assert_eq!(ask(&[1e30, 0.0, 0.0]), SearchError::OutOfRange);
    assert_eq!(ask(&[0.0; 3]), SearchError::ZeroQuery);
    assert!(index.search(&[1.0, 0.0, 0.0], 0, 10).is_empty());
    assert_eq!(
        index.search(&[1.0, 0.0, 0.0], 100, 10).len(),
        10,
        "k above the rows gives all rows"
    );
}

#[test]
fn a_search_ends_soon_after_its_caller_asked_it_to() {
    let (data, query) = (clustered(5000, 32, 41, 1), clustered(1, 32, 41, 2).remove(0));
    let index = build(&data, VectorMetric::Euclidean, HnswConfig::default());
    let (allowed, few): (RowSet, RowSet) =
        (RowSet::all(5000), (0..5000).step_by(2).map(RowId::new).collect());
    let stop = AtomicBool::new(true);
    let plain = SearchOptions::new(10);
    let filtered = |set, way| plain.allowed(set).strategy(way);
    let all = [
        ("walk", plain.ef(2000).strategy(SearchStrategy::Graph)),
        ("every vector", plain.ef(usize::MAX)),
        ("allowed vectors", filtered(&allowed, SearchStrategy::Exact)),
        ("allowed codes", filtered(&allowed, SearchStrategy::Codes)),
        ("cells", filtered(&few, SearchStrategy::Clusters)),
        ("filtered walk", filtered(&few, SearchStrategy::Graph).ef(2000)),
    ];
    for (name, options) in all {
        let found = index.search_with(&query, &options.stop(&stop));
        assert_eq!(found, Err(SearchError::Interrupted), "{name}");
    }
    stop.store(false, Ordering::Relaxed);
    for (name, options) in all {
        let (one, other) = (
            index.search_with(&query, &options.stop(&stop)),
            index.search_with(&query, &options),
        );
        assert_eq!(one, other, "{name}");
        assert_eq!(one.unwrap().hits.len(), 10, "{name}");
    }
}
