//! Filtered, range and batch search.

use datafusion_hnsw::format::HnswSerializer;
use datafusion_hnsw::hnsw::exact::distance_f64;
use datafusion_hnsw::hnsw::{HnswConfig, RowSet, SearchOptions, SearchStrategy, VectorMetric};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::loader::{MappedIndex, MmapLoader};

use crate::common::{Vectors, build, clustered, nearest, share};

const METRIC: VectorMetric = VectorMetric::Euclidean;
const ROWS: usize = 12_000;

fn mapped(data: &Vectors) -> MappedIndex {
    MmapLoader::from_bytes(&HnswSerializer::to_bytes(&build(
        data,
        METRIC,
        HnswConfig::default(),
    )))
    .unwrap()
}

/// Mean recall@10 of a filtered search; every answer has all rows that there are, and only allowed ones.
pub(crate) fn recall<'a>(
    data: &Vectors,
    index: &MappedIndex,
    allowed: &'a RowSet,
    queries: &[Vec<f32>],
    options: SearchOptions<'a>,
) -> f64 {
    let options = options.allowed(allowed);
    let mut sum = 0.0;
    for query in queries {
        let hits = index.search(query, &options).unwrap().hits;
        assert_eq!(hits.len() as u64, allowed.count().min(10));
        assert!(hits.iter().all(|hit| allowed.contains(hit.row)));
        let rows: Vec<RowId> = hits.iter().map(|hit| hit.row).collect();
        sum += share(&rows, &nearest(data, METRIC, query, 10, Some(allowed)));
    }
    sum / queries.len() as f64
}

/// Sorts queries by their distance to a point.
pub(crate) fn nearest_first(queries: &mut [Vec<f32>], point: &[f32]) {
    let gap = |q: &[f32]| q.iter().zip(point).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    queries.sort_by(|a, b| gap(a).total_cmp(&gap(b)));
}

#[test]
fn filtered_recall_stays_above_097_at_every_selectivity_wherever_the_allowed_rows_are() {
    let (data, queries) = (clustered(ROWS, 32, 31, 1), clustered(200, 32, 31, 2));
    let index = mapped(&data);
    let pivot = &queries[0];
    let by_distance = nearest(&data, METRIC, pivot, ROWS, None);
    let mut others = queries[1..].to_vec();
    nearest_first(&mut others, pivot);
    for selectivity in [0.5, 0.1, 0.01, 0.001] {
        let count = (ROWS as f64 * selectivity) as usize;
        let mut random = RowSet::new(ROWS as u64);
        (0..count).for_each(|i| random.insert(RowId::new((i * 7919 % ROWS) as u64)));
        let near: RowSet = by_distance[..count].iter().copied().collect();
        let cases = [
            ("independent", &random, &others[..30]),
            ("correlated", &near, &others[..30]),
            ("anti-correlated", &near, &others[others.len() - 30..]),
        ];
        for (name, allowed, queries) in cases {
            let recall = recall(&data, &index, allowed, queries, SearchOptions::new(10));
            assert!(recall >= 0.97, "{name}, {selectivity}, seed 31: recall {recall}");
        }
    }
}

#[test]
fn every_way_of_filtering_returns_all_k() {
    let (data, queries) = (clustered(2000, 32, 33, 1), clustered(10, 32, 33, 2));
    let index = mapped(&data);
    for step in [1, 3, 50, 700] {
        let allowed: RowSet = (0..2000).step_by(step).map(RowId::new).collect();
        for way in [
            SearchStrategy::Auto,
            SearchStrategy::Exact,
            SearchStrategy::Codes,
            SearchStrategy::Clusters,
            SearchStrategy::Graph,
        ] {
            let recall = recall(
                &data,
                &index,
                &allowed,
                &queries,
                SearchOptions::new(10).strategy(way),
            );
            assert!(recall >= 0.95, "{way:?}, one of {step}, seed 33: recall {recall}");
        }
    }
    let none = RowSet::new(2000);
    assert!(
        index
            .search(&queries[0], &SearchOptions::new(10).allowed(&none))
            .unwrap()
            .hits
            .is_empty()
    );
}

#[test]
fn queries_outside_of_all_data_do_not_compare_every_allowed_row() {
    let (data, queries) = (clustered(12_000, 32, 41, 1), clustered(40, 32, 41, 2));
    let index = mapped(&data);
    let queries: Vec<Vec<f32>> = queries
        .iter()
        .map(|query| query.iter().map(|x| 3.0 * x).collect())
        .collect();
    for step in [1, 2] {
        let allowed: RowSet = (0..12_000).step_by(step).map(RowId::new).collect();
        let options = SearchOptions::new(10).ef(48).strategy(SearchStrategy::Clusters);
        let compared = |query: &Vec<f32>| {
            let options = options.allowed(&allowed);
            index.search(query, &options).unwrap().stats.distances
        };
        let most = queries.iter().map(compared).max().unwrap();
        let recall = recall(&data, &index, &allowed, &queries, options);
        assert!(most < allowed.count() / 2, "{most} of {}", allowed.count());
        assert!(recall >= 0.98, "one in {step}, seed 41: recall {recall}");
    }
}

#[test]
fn filtered_rows_of_a_shared_node_are_told_apart() {
    let mut data = clustered(300, 32, 35, 1);
    data.extend(std::iter::repeat_n(data[5].clone(), 700));
    let index = mapped(&data);
    let allowed: RowSet = (400..450).map(RowId::new).collect();
    for way in [
        SearchStrategy::Auto,
        SearchStrategy::Exact,
        SearchStrategy::Codes,
        SearchStrategy::Clusters,
        SearchStrategy::Graph,
    ] {
        let hits = index
            .search(&data[5], &SearchOptions::new(60).allowed(&allowed).strategy(way))
            .unwrap()
            .hits;
        let rows: Vec<u64> = hits.iter().map(|hit| hit.row.get()).collect();
        assert_eq!(rows, (400..450).collect::<Vec<_>>(), "{way:?}");
    }
}

#[test]
fn a_range_search_finds_what_lies_within_the_radius() {
    let (data, queries) = (clustered(3000, 32, 37, 1), clustered(20, 32, 37, 2));
    let index = mapped(&data);
    let mut found = 0.0;
    for query in &queries {
        let exact: Vec<f64> = query.iter().map(|&x| f64::from(x)).collect();
        let mut distances: Vec<f64> = data
            .iter()
            .map(|vector| distance_f64(METRIC, &exact, vector).unwrap())
            .collect();
        distances.sort_by(f64::total_cmp);
        for within in [0, 1, 5, 300] {
            let radius = ((distances[within] + distances[within + 1]) / 2.0) as f32;
            let hits = index.range(query, radius, 1000, None).unwrap().hits;
            assert!(hits.len() <= within + 1);
            found += hits.len() as f64 / (within + 1) as f64 / 80.0;
            assert!(hits.iter().all(|hit| hit.distance <= radius));
        }
        assert_eq!(
            index.range(query, f32::MAX, 7, None).unwrap().hits.len(),
            7,
            "the limit holds"
        );
        let everything = index.range(query, f32::MAX, usize::MAX, None).unwrap();
        assert_eq!(everything.hits.len(), 3000);
        assert!(everything.stats.exact);
        assert!(index.range(query, -1.0, 10, None).unwrap().hits.is_empty());
    }
    assert!(found >= 0.97, "seed 37: recall {found}");
}

#[test]
fn a_batch_answers_as_one_by_one() {
    let (data, queries) = (clustered(3000, 32, 39, 1), clustered(50, 32, 39, 2));
    let index = mapped(&data);
    let options = SearchOptions::new(10);
    let batch = index.search_batch(&queries.concat(), &options).unwrap();
    let single: Vec<_> = queries
        .iter()
        .map(|query| index.search(query, &options).unwrap())
        .collect();
    assert_eq!(batch, single);
    assert!(index.search_batch(&queries.concat()[1..], &options).is_err());
}

#[test]
fn a_filter_that_was_asked_before_says_the_same_until_it_changes() {
    let (data, other) = (clustered(ROWS, 24, 17, 3), clustered(ROWS, 24, 17, 4));
    let indexes = [mapped(&data), mapped(&other)];
    let queries = clustered(40, 24, 17, 5);
    let ways = [
        SearchStrategy::Auto,
        SearchStrategy::Codes,
        SearchStrategy::Clusters,
        SearchStrategy::Graph,
    ];
    // Rows anywhere, and rows that leave most cells without any.
    let near = |count: usize| {
        let all = SearchOptions::new(ROWS).strategy(SearchStrategy::Exact);
        let hits = indexes[0].search(&queries[0], &all).unwrap().hits;
        hits[..count].iter().map(|hit| hit.row).collect::<RowSet>()
    };
    let anywhere = [2, 15, 60].map(|step| (0..ROWS as u64).step_by(step).map(RowId::new).collect());
    for mut asked in anywhere.into_iter().chain([300, 3000].map(near)) {
        let count = asked.count();
        for _ in 0..3 {
            // The second index is one that the set remembers nothing of.
            for (index, query) in indexes
                .iter()
                .flat_map(|index| queries.iter().map(move |q| (index, q)))
            {
                for way in ways {
                    let options = SearchOptions::new(10).ef(20).strategy(way);
                    let fresh = asked.clone();
                    let wanted = index.search(query, &options.allowed(&fresh)).unwrap();
                    let found = index.search(query, &options.allowed(&asked)).unwrap();
                    assert_eq!(found.hits, wanted.hits, "{count} rows, {way:?}");
                }
            }
            // What was nearest is forbidden, and what was forbidden and is nearest of all is let in.
            let options = SearchOptions::new(1);
            let nearest = indexes[0]
                .search(&queries[0], &options.allowed(&asked))
                .unwrap()
                .hits;
            asked.remove(nearest[0].row);
            let nearest = indexes[0].search(&queries[1], &options).unwrap().hits;
            asked.insert(nearest[0].row);
            let found = indexes[0]
                .search(&queries[1], &options.allowed(&asked))
                .unwrap()
                .hits;
            assert_eq!(found, nearest);
        }
    }
}

#[test]
fn a_set_of_few_rows_and_one_of_most_take_less_memory_than_any_may() {
    for rows in [100, 100_000, 1 << 20] {
        let most = RowSet::most_bytes(rows);
        let bytes = |count| {
            let mut set = RowSet::new(rows);
            set.insert_range(RowId::new(0), RowId::new(count));
            set.bytes()
        };
        let counts = [
            0,
            1,
            rows / 100,
            rows / 9,
            rows / 8,
            rows / 5,
            rows / 4,
            rows / 2,
            rows,
        ];
        assert!(counts.into_iter().all(|count| bytes(count) <= most), "{rows}");
        // One list of the nodes, for up to an eighth of the rows.
        assert!(bytes(0) >= rows / 8 && bytes(rows / 8) >= rows / 8 + rows / 8 * 4);
    }
    assert!(RowSet::all(1 << 20).bytes() < RowSet::most_bytes(1 << 20) / 2);
}

#[test]
fn a_row_set_is_a_set() {
    let mut set = RowSet::new(200);
    set.insert_range(RowId::new(3), RowId::new(130));
    set.insert(RowId::new(3));
    set.insert(RowId::new(500));
    set.remove(RowId::new(64));
    assert_eq!((set.count(), set.rows()), (126, 200));
    let rows: Vec<u64> = set.iter().map(RowId::get).collect();
    assert_eq!(rows, (3..130).filter(|&row| row != 64).collect::<Vec<_>>());
    let mut other: RowSet = [5, 64, 199].into_iter().map(RowId::new).collect();
    other.intersect(&set);
    assert_eq!(other.iter().map(RowId::get).collect::<Vec<_>>(), [5]);
    set.union(&RowSet::all(200));
    assert_eq!(set.count(), 200);
    assert_eq!(RowSet::all(64).iter().count(), 64);
}

#[test]
fn a_filtered_search_returns_k_allowed_rows_whenever_there_are_k() {
    let (data, queries) = (clustered(3000, 32, 19, 1), clustered(20, 32, 19, 2));
    let index = build(&data, VectorMetric::Euclidean, HnswConfig::default());
    for keep in [1, 2, 10, 100, 1000] {
        let mut allowed = RowSet::new(3000);
        (0..3000)
            .step_by(keep)
            .for_each(|row| allowed.insert(RowId::new(row)));
        let mut sum = 0.0;
        for query in &queries {
            let options = SearchOptions::new(10).allowed(&allowed);
            let hits = index.search_with(query, &options).unwrap().hits;
            assert_eq!(hits.len() as u64, allowed.count().min(10));
            assert!(hits.iter().all(|hit| allowed.contains(hit.row)));
            let rows: Vec<RowId> = hits.iter().map(|hit| hit.row).collect();
            sum += share(
                &rows,
                &nearest(&data, VectorMetric::Euclidean, query, 10, Some(&allowed)),
            );
        }
        assert!(
            sum / 20.0 >= 0.97,
            "one row of {keep}, seed 19: recall {}",
            sum / 20.0
        );
    }
}
