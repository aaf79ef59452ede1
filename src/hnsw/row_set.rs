//! A set of rows, as a filter hands it to a search.

use super::kernels::Ones;
use super::node_memory::{NodeMemory, most_remembered, most_remembered_of_any};
use crate::id::RowId;

/// A set of [`RowId`]s below a known number of rows.
///
/// Plain bits, one per row. A filtered search asks `contains` for every node it meets, in no order:
/// one load and a shift here, against a search through containers in a compressed set. A million
/// rows cost 125 kB, and a table of more rows is many files with an index each. A set that is asked
/// about one index again remembers as many bits for its nodes, and may list them if they are few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    rows: u64,
    count: u64,
    memory: NodeMemory,
}

impl RowSet {
    /// The empty set over `rows` rows.
    pub fn new(rows: u64) -> Self {
        let words = usize::try_from(rows.div_ceil(64)).expect("a bit for each row fits in memory");
        Self {
            words: vec![0; words],
            rows,
            count: 0,
            memory: NodeMemory::default(),
        }
    }

    /// The set of all of `rows` rows.
    pub fn all(rows: u64) -> Self {
        let mut set = Self::new(rows);
        set.insert_range(RowId::new(0), RowId::new(rows));
        set
    }

    /// The number of rows that the set is taken from.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a row; rows beyond [`rows`](Self::rows) are ignored.
    pub fn insert(&mut self, row: RowId) {
        if row.get() < self.rows {
            self.memory = NodeMemory::default();
            let (bits, bit) = (&mut self.words[word(row.get())], 1 << (row.get() % 64));
            self.count += u64::from(*bits & bit == 0);
            *bits |= bit;
        }
    }

    /// Adds the rows from `start` up to but not including `end`.
    pub fn insert_range(&mut self, start: RowId, end: RowId) {
        let (start, end) = (start.get(), end.get().min(self.rows));
        if start >= end {
            return;
        }
        let (first, last) = (word(start), word(end - 1));
        let head = u64::MAX << (start % 64);
        let tail = u64::MAX >> (63 - (end - 1) % 64);
        if first == last {
            self.words[first] |= head & tail;
        } else {
            self.words[first] |= head;
            self.words[first + 1..last].fill(u64::MAX);
            self.words[last] |= tail;
        }
        self.recount();
    }

    /// Takes a row out.
    pub fn remove(&mut self, row: RowId) {
        if row.get() < self.rows {
            self.memory = NodeMemory::default();
            let (bits, bit) = (&mut self.words[word(row.get())], 1 << (row.get() % 64));
            self.count -= u64::from(*bits & bit != 0);
            *bits &= !bit;
        }
    }

    /// Whether the row is in the set.
    #[inline]
    pub fn contains(&self, row: RowId) -> bool {
        let at = row.get() / 64;
        usize::try_from(at)
            .ok()
            .and_then(|at| self.words.get(at))
            .is_some_and(|bits| bits >> (row.get() % 64) & 1 == 1)
    }

    /// A bit for each row, the lowest first.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// How many rows are in the set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether no row is in the set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What is known about nodes.
    pub(crate) fn memory(&self) -> &NodeMemory {
        &self.memory
    }

    /// The bytes of memory that any set over so many rows takes at most, with what it remembers of the nodes of an index: for
    /// memory that is reserved before it is known which rows are in the set.
    pub fn most_bytes(rows: u64) -> u64 {
        rows / 8 + most_remembered_of_any(rows) + 256
    }

    /// The bytes of memory that this set takes at most, as long as it does not change, with what it remembers of the nodes of
    /// an index: for caches of filters.
    pub fn bytes(&self) -> u64 {
        self.rows / 8 + most_remembered(self.rows, self.count) + 256
    }

    fn recount(&mut self) {
        self.memory = NodeMemory::default();
        self.count = self.words.iter().map(|bits| u64::from(bits.count_ones())).sum();
    }

    /// The rows of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = RowId> + '_ {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(at, &bits)| Ones(bits).map(move |bit| row_at(at, bit)))
    }

    /// Keeps the rows that are in `other` too.
    pub fn intersect(&mut self, other: &Self) {
        for (at, bits) in self.words.iter_mut().enumerate() {
            *bits &= other.words.get(at).copied().unwrap_or(0);
        }
        self.recount();
    }

    /// Adds the rows of `other` (those below [`rows`](Self::rows)).
    pub fn union(&mut self, other: &Self) {
        for row in other.iter() {
            self.insert(row);
        }
    }
}

impl FromIterator<RowId> for RowSet {
    /// Collects rows; the set is over just enough rows to hold the greatest.
    fn from_iter<I: IntoIterator<Item = RowId>>(rows: I) -> Self {
        let rows: Vec<RowId> = rows.into_iter().collect();
        let mut set = Self::new(rows.iter().max().map_or(0, |row| row.get() + 1));
        rows.into_iter().for_each(|row| set.insert(row));
        set
    }
}

fn word(row: u64) -> usize {
    usize::try_from(row / 64).expect("below the number of words, which fits")
}

fn row_at(word: usize, bit: u32) -> RowId {
    RowId::new(word as u64 * 64 + u64::from(bit))
}
