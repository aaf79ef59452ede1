//! From the candidates of all files, the rows to fetch: a superset of the answer, and small.

use super::through_index::Candidates;
use crate::sql::recognize::order_by::KnnRequest;

/// The rows to fetch of each file, in ascending order.
pub(crate) fn choose(candidates: Vec<Candidates>, request: &KnnRequest) -> Vec<Vec<u64>> {
    let mut at_most: Vec<f64> = candidates
        .iter()
        .flat_map(|c| c.near.iter().map(|n| n.at_most))
        .collect();
    let near_rows = at_most.len();
    let cutoff = match request.k.checked_sub(1) {
        None => f64::NEG_INFINITY,
        Some(last) if last < near_rows => *at_most.select_nth_unstable_by(last, f64::total_cmp).1,
        Some(_) => f64::INFINITY,
    };
    // Rows nearer than the cutoff are surely in; of those at it, as many as are left to take, unless all are wanted.
    let exact = candidates
        .iter()
        .all(|c| c.near.iter().all(|n| n.at_least.to_bits() == n.at_most.to_bits()));
    let mut at_cutoff = if request.ties || !exact {
        usize::MAX
    } else {
        let nearer = candidates
            .iter()
            .flat_map(|c| &c.near)
            .filter(|n| n.at_most < cutoff)
            .count();
        request.k.saturating_sub(nearer)
    };
    let mut nulls = if request.nulls_first {
        request.k
    } else {
        request.k.saturating_sub(near_rows)
    };
    if request.ties && nulls > 0 {
        nulls = usize::MAX;
    }
    candidates
        .into_iter()
        .map(|mut file| {
            file.near.sort_unstable_by_key(|n| n.row);
            let mut rows: Vec<u64> = file
                .near
                .iter()
                .filter(|n| {
                    if n.at_least < cutoff {
                        return true;
                    }
                    let taken = n.at_least <= cutoff && at_cutoff > 0;
                    at_cutoff -= usize::from(taken && at_cutoff != usize::MAX);
                    taken
                })
                .map(|n| n.row)
                .collect();
            rows.append(&mut file.always);
            file.nulls.truncate(nulls);
            if nulls != usize::MAX {
                nulls -= file.nulls.len();
            }
            rows.append(&mut file.nulls);
            rows.sort_unstable();
            rows.dedup();
            rows
        })
        .collect()
}
