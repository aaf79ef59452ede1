//! Rows with identical vectors, folded into groups: a node for each.
//!
//! Thousands of equal points would link only to each other and wall themselves off from the rest.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

/// Groups of rows, in the order of their first rows; a row is its number and its place in the matrix.
#[derive(Debug)]
pub(crate) struct Groups {
    members: Vec<(u32, u32)>,
    /// Where each group begins, and the end.
    starts: Vec<u32>,
}

impl Groups {
    /// Groups `rows`, which are sorted by number, by the bits of their vectors.
    pub(crate) fn of_identical<'a>(rows: Vec<(u32, u32)>, bytes: impl Fn(u32) -> &'a [u8] + Sync) -> Self {
        let mut hashed: Vec<(u64, u32, u32)> = rows
            .par_iter()
            .map(|&(row, place)| (xxh3_64(bytes(place)), row, place))
            .collect();
        drop(rows);
        hashed.par_sort_unstable();
        // The first row of each row's group, the row, its place.
        let mut led: Vec<(u32, u32, u32)> = Vec::with_capacity(hashed.len());
        let mut leaders: Vec<(u32, u32)> = Vec::new();
        for same_hash in hashed.chunk_by(|a, b| a.0 == b.0) {
            leaders.clear();
            for &(_, row, place) in same_hash {
                let leader = leaders.iter().find(|&&(_, other)| bytes(other) == bytes(place));
                led.push((leader.map_or(row, |leader| leader.0), row, place));
                if leader.is_none() {
                    leaders.push((row, place));
                }
            }
        }
        drop(hashed);
        led.par_sort_unstable();
        let mut groups = Self {
            members: Vec::with_capacity(led.len()),
            starts: vec![0],
        };
        for group in led.chunk_by(|a, b| a.0 == b.0) {
            groups.push(group.iter().map(|&(_, row, place)| (row, place)));
        }
        groups
    }

    fn push(&mut self, group: impl Iterator<Item = (u32, u32)>) {
        self.members.extend(group);
        self.starts
            .push(u32::try_from(self.members.len()).expect("as many as rows at most"));
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub(crate) fn get(&self, group: usize) -> &[(u32, u32)] {
        &self.members[self.starts[group] as usize..self.starts[group + 1] as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[(u32, u32)]> {
        (0..self.len()).map(|group| self.get(group))
    }

    /// The groups in another order.
    pub(crate) fn reordered(&self, order: &[u32]) -> Self {
        let mut groups = Self {
            members: Vec::with_capacity(self.members.len()),
            starts: vec![0],
        };
        for &group in order {
            groups.push(self.get(group as usize).iter().copied());
        }
        groups
    }
}
