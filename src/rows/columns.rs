//! Small columns whose single rows are dear to read, decoded once and kept.
//!
//! Without a page index, reading ten rows decodes every page before them; with one, the pages that hold them. Many
//! writers leave the index out by default, others put 20,000 rows into a page: milliseconds for each query, always
//! over the same pages.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::Fields;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::TryStreamExt;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::footer::{Footer, FooterKey};
use super::memory::{has_room_to_keep, take_to_keep, undivided};
use super::pause::Pause;
use super::scan::{FileRead, TableFiles};

/// Columns of more uncompressed bytes in a file are not kept.
const LARGEST: i64 = 32 << 20;

/// Pages of as many rows make a column dear to read by rows.
const LONG_PAGE: i64 = 2048;

/// The name of the memory consumer.
const WHO: &str = "columns kept for vector search";

/// A column of a file as a table sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ColumnKey {
    file: FooterKey,
    partition_values: Vec<ScalarValue>,
    table: Fields,
    column: usize,
}

/// Whole columns, shared by all queries of a session; the least useful go first.
#[derive(Debug)]
pub(crate) struct ColumnCache(Cache<ColumnKey, Column, Memory>);

/// A column, and the memory it was granted.
#[derive(Clone, Debug)]
struct Column {
    array: ArrayRef,
    memory: Arc<MemoryReservation>,
}

#[derive(Clone, Debug)]
struct Memory;

impl Weighter<ColumnKey, Column> for Memory {
    fn weight(&self, _key: &ColumnKey, column: &Column) -> u64 {
        column.memory.size() as u64
    }
}

impl ColumnCache {
    /// A cache of this many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(undivided(256, bytes, Memory))
    }

    /// Changes how many bytes it may hold.
    pub(crate) fn resize(&self, bytes: u64) {
        if self.0.capacity() != bytes {
            self.0.set_capacity(bytes);
        }
    }

    /// The columns that `read` names, over all rows of the file; `None` if they are better read row by row.
    pub(crate) async fn whole(
        &self,
        table: &TableFiles,
        read: FileRead<'_>,
        context: &Arc<TaskContext>,
    ) -> Result<Option<Vec<ArrayRef>>> {
        if self.0.capacity() == 0 {
            return Ok(None);
        }
        let Some(bytes) = small_but_dear(table.fields(), read.footer, read.columns) else {
            return Ok(None);
        };
        // Where a page can be found, decoding all of them pays only if they are still there for the next query.
        let all_files = (bytes as u64).saturating_mul(table.files().count() as u64);
        if read.footer.metadata.offset_index().is_some() && all_files > self.0.capacity() / 2 {
            return Ok(None);
        }
        let key = |&column: &usize| ColumnKey {
            file: FooterKey::of(read.source),
            partition_values: read.file.partition_values.clone(),
            table: table.fields().clone(),
            column,
        };
        let keys: Vec<ColumnKey> = read.columns.iter().map(key).collect();
        if let Some(known) = keys.iter().map(|key| Some(self.0.get(key)?.array)).collect() {
            return Ok(Some(known));
        }
        let (count, pool) = (keys.len(), context.memory_pool());
        if !has_room_to_keep(pool, bytes) {
            return Ok(None);
        }
        let (mut stream, mut batches, mut pause) = (table.read(read, context)?, vec![], Pause::new());
        while let Some(batch) = stream.try_next().await? {
            batches.push(batch);
            pause.if_due().await;
        }
        let mut columns = Vec::with_capacity(count);
        for (place, key) in keys.into_iter().enumerate() {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(place).as_ref()).collect();
            let column = concat(&parts)?;
            if let Some(memory) = take_to_keep(pool, WHO, column.get_array_memory_size() + 256) {
                let (array, memory) = (Arc::clone(&column), Arc::new(memory));
                self.0.insert(key, Column { array, memory });
            }
            columns.push(column);
        }
        Ok(Some(columns))
    }
}

/// The bytes of these columns of a file, if they are few and single rows of them are dear.
fn small_but_dear(table: &Fields, footer: &Footer, columns: &[usize]) -> Option<usize> {
    if footer.rows == 0 {
        return None;
    }
    let names: Vec<&str> = columns
        .iter()
        .filter_map(|&c| Some(table.get(c)?.name().as_str()))
        .collect();
    let index = footer.metadata.offset_index();
    let (mut bytes, mut longest) = (0_i64, 0);
    for (at, group) in footer.metadata.row_groups().iter().enumerate() {
        for (column, chunk) in group.columns().iter().enumerate() {
            let root = chunk.column_path().parts().first();
            if root.is_none_or(|root| !names.contains(&root.as_str())) {
                continue;
            }
            bytes = bytes.saturating_add(chunk.uncompressed_size());
            // Bytes from outside: an index need not have an entry for every chunk.
            let pages = index
                .and_then(|index| index.get(at)?.get(column))
                .map_or(1, |pages| pages.page_locations().len());
            longest = longest.max(group.num_rows() / i64::try_from(pages.max(1)).ok()?);
        }
    }
    let dear = longest >= LONG_PAGE || index.is_none();
    usize::try_from(bytes).ok().filter(|_| dear && bytes <= LARGEST)
}
