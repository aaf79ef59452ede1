//! Distances to the bit.

use datafusion_hnsw::hnsw::exact::{TopK, distance_f64, distances_f64};
use datafusion_hnsw::hnsw::{HnswConfig, SearchOptions, VectorMetric, distance_error};
use datafusion_hnsw::id::RowId;

use crate::common::{build, clustered, uniform};

#[test]
fn many_rows_at_once_have_the_same_bits_as_one_by_one() {
    for dim in [1, 2, 7, 33, 384] {
        let data = uniform(37, dim, 1);
        let rows: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        let query: Vec<f64> = uniform(1, dim, 2)[0]
            .iter()
            .map(|&x| f64::from(x) * 1.1)
            .collect();
        for metric in VectorMetric::ALL {
            let mut out = vec![None; 37];
            distances_f64(metric, &query, &rows, &mut out);
            for (row, distance) in out.into_iter().enumerate() {
                let alone = distance_f64(metric, &query, rows[row]);
                assert_eq!(distance.map(f64::to_bits), alone.map(f64::to_bits));
            }
        }
    }
}

#[test]
fn a_zero_vector_has_no_cosine_distance() {
    assert_eq!(
        distance_f64(VectorMetric::Cosine, &[1.0, 0.0], &[0.0, -0.0]),
        None
    );
    assert_eq!(distance_f64(VectorMetric::Cosine, &[0.0, 0.0], &[1.0, 0.0]), None);
    assert_eq!(
        distance_f64(VectorMetric::Euclidean, &[3.0, 0.0], &[0.0, 4.0]),
        Some(5.0)
    );
    assert_eq!(
        distance_f64(VectorMetric::DotProduct, &[3.0, 1.0], &[2.0, 4.0]),
        Some(-10.0)
    );
}

#[test]
fn hits_are_within_the_promised_error() {
    for dim in [3, 40, 384] {
        let (data, queries) = (clustered(300, dim, 3, 1), clustered(10, dim, 3, 2));
        for metric in VectorMetric::ALL {
            let index = build(&data, metric, HnswConfig::default());
            for query in &queries {
                let exact: Vec<f64> = query.iter().map(|&x| f64::from(x)).collect();
                let length = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
                let longest = data
                    .iter()
                    .map(|v| v.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt())
                    .fold(0.0, f64::max);
                for hit in index
                    .search_with(query, &SearchOptions::new(50).ef(300))
                    .unwrap()
                    .hits
                {
                    let truth = distance_f64(metric, &exact, &data[hit.row.get() as usize]).unwrap();
                    let bound = distance_error(metric, dim, length, longest, hit.distance);
                    let off = (truth - f64::from(hit.distance)).abs();
                    assert!(off <= bound, "{metric}, dim {dim}: off by {off}, bound {bound}");
                    assert!(
                        bound < 1e-3 * length * longest.max(1.0),
                        "{metric}, dim {dim}: bound {bound}"
                    );
                }
            }
        }
    }
}

#[test]
fn ties_of_the_kth_are_kept_when_asked() {
    let distances = [3.0, 1.0, 2.0, 2.0, 5.0, 2.0, 0.0, f64::NAN];
    let run = |mut best: TopK| {
        distances
            .iter()
            .enumerate()
            .for_each(|(row, &d)| best.push(RowId::new(row as u64), d));
        best.into_sorted()
            .into_iter()
            .map(|n| n.row.get())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(TopK::new(3)), [6, 1, 2]);
    assert_eq!(run(TopK::with_ties(3)), [6, 1, 2, 3, 5]);
    assert_eq!(run(TopK::new(0)), Vec::<u64>::new());
    assert_eq!(run(TopK::new(100)), [6, 1, 2, 3, 5, 0, 4, 7]);
}
