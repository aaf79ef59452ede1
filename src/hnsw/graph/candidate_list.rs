//! The candidates of a beam search, sorted.

/// A node and its key, in one word: ordered by key, then id. The lowest bit is the candidate list's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate(u64);

impl Candidate {
    #[inline(always)]
    pub(crate) fn new(key: u32, node: u32) -> Self {
        Self(u64::from(key) << 32 | u64::from(node) << 1)
    }

    #[inline(always)]
    pub(crate) fn key(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("32 bits")
    }

    /// As one that was never looked at.
    pub(crate) fn unmarked(self) -> Self {
        Self(self.0 & !1)
    }

    #[inline(always)]
    pub(crate) fn node(self) -> u32 {
        u32::try_from(self.0 & 0xFFFF_FFFF).expect("32 bits") >> 1
    }
}

/// Candidates that one vector instruction moves.
const BLOCK: usize = 8;
/// A place without a candidate: farther than all.
const FREE: Candidate = Candidate(u64::MAX);

/// The nearest candidates found so far, in one sorted array: the paper's *C* and *W* together. A
/// candidate whose neighbors were looked at is marked and stays.
#[derive(Debug, Default)]
pub(crate) struct CandidateList {
    /// A block of zeros, nearer than all; the candidates; [`FREE`] places, up to a whole block.
    places: Vec<Candidate>,
    len: usize,
    capacity: usize,
    /// All before this are marked.
    cursor: usize,
    /// Those from here on are never marked: nobody looks at their neighbors.
    horizon: usize,
}

impl CandidateList {
    pub(crate) fn reset(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
        (self.len, self.cursor, self.horizon) = (0, 0, usize::MAX);
        self.places.clear();
        self.places.resize(BLOCK, Candidate(0));
    }

    /// From now on only the nearest so many are to be looked at.
    pub(crate) fn look_at(&mut self, nearest: usize) {
        self.horizon = nearest;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Makes room for so many more.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, more: usize) {
        let most = (self.len + more).min(self.capacity);
        let needed = BLOCK + most.next_multiple_of(BLOCK);
        if self.places.len() < needed {
            self.places.resize(needed, FREE);
        }
    }

    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.places[BLOCK..][..self.len]
    }

    /// Only candidates before this one get in.
    #[inline(always)]
    pub(crate) fn threshold(&self) -> Candidate {
        if self.len == self.capacity {
            self.places[BLOCK + self.len - 1]
        } else {
            FREE
        }
    }

    /// Puts a candidate that is before the [`threshold`](Self::threshold) in its place; there must be room.
    /// True if it is now the next to be looked at.
    #[inline(always)]
    pub(crate) fn insert(&mut self, new: Candidate) -> bool {
        let last = self.len.min(self.capacity - 1);
        let (blocks, _) = self.places.as_chunks_mut::<BLOCK>();
        let mut at = 1 + last / BLOCK;
        // Each place takes its own candidate, the one before, or the new one: the middle of the three.
        let place = loop {
            let (before, here) = (blocks[at - 1][BLOCK - 1], blocks[at]);
            let mut shifted = [before; BLOCK];
            shifted[1..].copy_from_slice(&here[..BLOCK - 1]);
            for (i, place) in blocks[at].iter_mut().enumerate() {
                *place = here[i].min(shifted[i].max(new));
            }
            if before <= new {
                break (at - 1) * BLOCK + here.iter().filter(|&&old| old < new).count();
            }
            at -= 1;
        };
        let next = place <= self.cursor;
        self.cursor = self.cursor.min(place);
        self.len = last + 1;
        if let Some(beyond) = self.places.get_mut(BLOCK + self.capacity) {
            *beyond = FREE;
        }
        next
    }

    /// Keeps the candidate if it is among the nearest.
    #[inline(always)]
    pub(crate) fn push(&mut self, new: Candidate) {
        if new < self.threshold() {
            self.reserve(1);
            self.insert(new);
        }
    }

    /// Marks the nearest unmarked candidate and gives its node, unless it is beyond what is to be looked at.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<u32> {
        while self.cursor < self.len.min(self.horizon) {
            let candidate = &mut self.places[BLOCK + self.cursor];
            self.cursor += 1;
            if candidate.0 & 1 == 0 {
                candidate.0 |= 1;
                return Some(candidate.node());
            }
        }
        None
    }

    /// The candidate that comes next, if nothing nearer is found before, or one just after it.
    #[inline(always)]
    pub(crate) fn upcoming(&self, place: usize) -> Option<u32> {
        let at = self.cursor + place;
        (at < self.len).then(|| self.places[BLOCK + at].node())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hnsw::build::levels::mix;

    #[test]
    fn the_pool_keeps_the_nearest_in_order() {
        for capacity in [1, 2, 7, 8, 9, 15, 16, 17, 40] {
            let (mut candidate_list, mut plain) = (CandidateList::default(), Vec::new());
            candidate_list.reset(capacity);
            for i in 0..200u32 {
                let key = (mix(u64::from(i) ^ mix(capacity as u64)) >> 56) as u8;
                let new = Candidate::new(u32::from(key), i);
                candidate_list.push(new);
                plain.push(new);
                plain.sort_unstable();
                plain.truncate(capacity);
                assert_eq!(
                    candidate_list.candidates(),
                    plain,
                    "capacity {capacity}, {i} pushed"
                );
            }
            let nodes: Vec<u32> = std::iter::from_fn(|| candidate_list.next()).collect();
            assert_eq!(nodes, plain.iter().map(|c| c.node()).collect::<Vec<_>>());
            candidate_list.push(Candidate::new(0, 0));
            assert_eq!((candidate_list.next(), candidate_list.next()), (Some(0), None));

            candidate_list.reset(capacity);
            candidate_list.look_at(5);
            plain.iter().for_each(|&candidate| candidate_list.push(candidate));
            let nodes: Vec<u32> = std::iter::from_fn(|| candidate_list.next()).collect();
            assert_eq!(
                nodes,
                plain[..capacity.min(5)]
                    .iter()
                    .map(|c| c.node())
                    .collect::<Vec<_>>()
            );
        }
    }
}
