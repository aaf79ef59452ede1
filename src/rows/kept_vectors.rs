//! The vectors of the rows that an exact scan found, kept while it passes them.
//!
//! A file without a page index has to be read from its start to give a single vector, so fetching the found rows would
//! read its whole vector column a second time.

use std::collections::HashSet;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, UInt64Array};
use datafusion::arrow::compute::{concat, take};
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;

/// More bytes of a file's vectors than this are not kept; they are read again.
const MOST_BYTES: usize = 32 << 20;

/// Rows that may be kept beyond twice those that are still wanted, before the others are let go.
const SPARE_ROWS: usize = 1024;

/// The vectors of some rows of a file.
#[derive(Debug)]
pub(crate) struct KeptVectors {
    /// In ascending order.
    rows: Vec<u64>,
    vectors: ArrayRef,
    _memory: MemoryReservation,
}

impl KeptVectors {
    /// Whether it has all of these rows.
    pub(crate) fn has(&self, rows: &[u64]) -> bool {
        rows.iter().all(|row| self.rows.binary_search(row).is_ok())
    }

    /// The vectors of these rows, in their order; rows that it does not have are left out.
    pub(crate) fn of(&self, rows: impl Iterator<Item = u64>) -> Result<ArrayRef> {
        let places = rows.filter_map(|row| self.rows.binary_search(&row).ok());
        let places = UInt64Array::from_iter_values(places.map(|place| place as u64));
        Ok(take(&self.vectors, &places, None)?)
    }
}

/// Keeps the vectors of rows that are found, as long as they are wanted.
#[derive(Debug)]
pub(crate) struct VectorKeeper {
    /// Rows in ascending order, and their vectors, batch by batch.
    parts: Vec<(Vec<u64>, ArrayRef)>,
    rows: usize,
    memory: MemoryReservation,
    /// There were too many, or the pool has no room for them.
    gave_up: bool,
}

impl VectorKeeper {
    /// A keeper that takes its memory of this reservation's pool.
    pub(crate) fn new(memory: MemoryReservation) -> Self {
        Self {
            parts: vec![],
            rows: 0,
            memory,
            gave_up: false,
        }
    }

    /// Keeps the vectors of the rows of a batch that are wanted. `wanted` are all rows of the file that are wanted by
    /// now, in any order.
    pub(crate) fn keep(
        &mut self,
        numbers: &Int64Array,
        vectors: &ArrayRef,
        wanted: impl Iterator<Item = u64> + Clone,
    ) -> Result<()> {
        if self.gave_up {
            return Ok(());
        }
        let place = |row: u64| numbers.values().binary_search(&row.cast_signed()).ok();
        let mut places: Vec<u64> = wanted.clone().filter_map(place).map(|at| at as u64).collect();
        places.sort_unstable();
        if !places.is_empty() {
            let places = UInt64Array::from(places);
            let rows = take(numbers, &places, None)?;
            let rows = rows.as_any().downcast_ref::<Int64Array>().into_iter();
            let rows = rows.flat_map(|rows| rows.values().iter().map(|row| row.cast_unsigned()));
            self.put(rows.collect(), take(vectors, &places, None)?);
        }
        if self.rows > SPARE_ROWS && self.rows > SPARE_ROWS + 2 * wanted.clone().count() {
            self.let_go(&wanted.collect())?;
        }
        let bytes = self
            .parts
            .iter()
            .map(|(rows, vectors)| size_of_val(&**rows) + vectors.get_array_memory_size());
        let bytes = bytes.sum();
        if bytes > MOST_BYTES || self.memory.try_resize(bytes).is_err() {
            self.gave_up = true;
            self.parts.clear();
            self.memory.free();
        }
        Ok(())
    }

    /// What was kept of these rows.
    pub(crate) fn finish(mut self, wanted: impl Iterator<Item = u64>) -> Result<Option<KeptVectors>> {
        self.let_go(&wanted.collect())?;
        let vectors: Vec<&dyn Array> = self.parts.iter().map(|(_, vectors)| vectors.as_ref()).collect();
        if vectors.is_empty() {
            return Ok(None);
        }
        Ok(Some(KeptVectors {
            vectors: concat(&vectors)?,
            rows: self.parts.iter().flat_map(|(rows, _)| rows).copied().collect(),
            _memory: self.memory,
        }))
    }

    fn put(&mut self, rows: Vec<u64>, vectors: ArrayRef) {
        self.rows += rows.len();
        self.parts.push((rows, vectors));
    }

    fn let_go(&mut self, wanted: &HashSet<u64>) -> Result<()> {
        self.rows = 0;
        for (rows, vectors) in std::mem::take(&mut self.parts) {
            let still: Vec<usize> = (0..rows.len()).filter(|&at| wanted.contains(&rows[at])).collect();
            if still.len() == rows.len() {
                self.put(rows, vectors);
            } else if !still.is_empty() {
                let places = UInt64Array::from_iter_values(still.iter().map(|&at| at as u64));
                self.put(
                    still.iter().map(|&at| rows[at]).collect(),
                    take(&vectors, &places, None)?,
                );
            }
        }
        Ok(())
    }
}
