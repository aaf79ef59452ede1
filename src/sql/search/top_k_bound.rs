//! The k-th best distance so far, over all files of a search: what is farther needs no work.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use super::through_index::Candidate;

/// The `k` least upper bounds of distances seen so far.
///
/// A row farther than all of them is not in the answer, and not even tied with its last: leaving such rows out changes
/// nothing, whatever the order in which files are searched.
#[derive(Debug)]
pub(crate) struct Bound {
    k: usize,
    nearest: Mutex<BinaryHeap<Distance>>,
}

#[derive(Debug)]
struct Distance(f64);

impl Bound {
    /// Nothing is known yet.
    pub(crate) fn new(k: usize) -> Self {
        Self {
            k,
            nearest: Mutex::default(),
        }
    }

    /// Notes rows that were found.
    pub(crate) fn note(&self, found: &[Candidate]) {
        let mut nearest = self.nearest.lock().unwrap_or_else(PoisonError::into_inner);
        for row in found {
            if nearest.len() < self.k {
                nearest.push(Distance(row.at_most));
            } else if let Some(mut farthest) = nearest.peek_mut()
                && row.at_most < farthest.0
            {
                *farthest = Distance(row.at_most);
            }
        }
    }

    /// The k-th best distance so far; infinite while there are fewer than `k` rows.
    pub(crate) fn distance(&self) -> f64 {
        let nearest = self.nearest.lock().unwrap_or_else(PoisonError::into_inner);
        match nearest.peek() {
            Some(farthest) if nearest.len() == self.k => farthest.0,
            _ => f64::INFINITY,
        }
    }
}

impl PartialEq for Distance {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Distance {}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_kth_least_distance_seen() {
        let row = |distance: f64| Candidate {
            row: 0,
            at_least: distance - 1.0,
            at_most: distance,
        };
        let bound = Bound::new(3);
        bound.note(&[row(5.0), row(1.0)]);
        assert_eq!(bound.distance(), f64::INFINITY);
        bound.note(&[row(9.0)]);
        assert_eq!(bound.distance(), 9.0);
        bound.note(&[row(2.0), row(7.0), row(-4.0)]);
        assert_eq!(bound.distance(), 2.0);
        assert_eq!(Bound::new(0).distance(), f64::INFINITY);
    }
}
