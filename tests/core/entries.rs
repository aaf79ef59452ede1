//! Where walks begin.

use datafusion_hnsw::format::HnswSerializer;
use datafusion_hnsw::hnsw::{HnswConfig, SearchOptions, VectorMetric};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::loader::{MappedIndex, MmapLoader};

use crate::common::{Vectors, build, nearest, share, uniform};

const DIM: usize = 24;

/// Points in 2000 small clusters.
fn points(count: usize, draw: u64) -> Vectors {
    let (centres, noise) = (uniform(2000, DIM, 51), uniform(count, DIM, 52 + draw));
    let near = |(place, noise): (usize, &Vec<f32>)| {
        let centre = &centres[(place * 7) % 2000];
        centre.iter().zip(noise).map(|(c, x)| c + 0.1 * x).collect()
    };
    noise.iter().enumerate().map(near).collect()
}

fn mapped(data: &Vectors, metric: VectorMetric) -> MappedIndex {
    let index = build(data, metric, HnswConfig::default());
    MmapLoader::from_bytes(&HnswSerializer::to_bytes(&index)).unwrap()
}

/// Mean recall@10 with the fewest candidates, and the mean number of distances.
fn narrow(data: &Vectors, metric: VectorMetric, queries: &Vectors) -> (f64, f64) {
    let index = mapped(data, metric);
    index.verify().unwrap();
    let (mut recall, mut distances) = (0.0, 0.0);
    for query in queries {
        let outcome = index.search(query, &SearchOptions::new(10).ef(10)).unwrap();
        let rows: Vec<RowId> = outcome.hits.iter().map(|hit| hit.row).collect();
        assert!(!outcome.stats.exact);
        recall += share(&rows, &nearest(data, metric, query, 10, None));
        distances += outcome.stats.distances as f64;
    }
    (recall / queries.len() as f64, distances / queries.len() as f64)
}

#[test]
fn a_narrow_walk_begins_in_the_right_cluster() {
    let queries = points(100, 1);
    // Without groups of cells, and with.
    for rows in [4000, 16_000] {
        let data = points(rows, 0);
        for metric in [
            VectorMetric::Euclidean,
            VectorMetric::Cosine,
            VectorMetric::DotProduct,
        ] {
            let (recall, distances) = narrow(&data, metric, &queries);
            assert!(recall >= 0.97, "{rows} rows, {metric}: recall {recall}");
            assert!(distances <= 400.0, "{rows} rows, {metric}: {distances} distances");
        }
    }
}

#[test]
fn many_cells_are_grouped_and_few_are_not() {
    let groups = |rows| {
        let index = mapped(&points(rows, 0), VectorMetric::Euclidean);
        let sizes = index.section_sizes();
        let size = sizes.into_iter().find(|(name, _)| *name == "groups");
        size.map_or(0, |(_, bytes)| bytes)
    };
    assert_eq!(groups(4000), 0);
    let found = groups(9000);
    assert!((11 * 32..=14 * 32).contains(&found), "{found} bytes");
}
