//! Filters to bitmaps: which rows of a file satisfy a predicate.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Volatility;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
    NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use futures::TryStreamExt;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::footer::FooterKey;
use super::memory::{Held, has_room_to_keep, take, undivided};
use super::pause::Pause;
use super::scan::{FileRead, ROW_NUMBER, TableFiles, matching, row_numbers};
use crate::hnsw::RowSet;
use crate::id::RowId;

/// The name of the memory consumer.
const WHO: &str = "filter bitmaps of vector search";

/// The rows of a file that satisfy a predicate.
pub(crate) type Bitmap = Arc<Held<RowSet>>;

/// A predicate over a table's columns, ready for its files.
#[derive(Clone, Debug)]
pub(crate) struct RowFilter {
    /// Over the table's schema; leaves out row groups and pages.
    pub over_table: Arc<dyn PhysicalExpr>,
    /// The columns that it names, in the table's schema, in ascending order.
    pub columns: Vec<usize>,
    /// The same predicate over a batch of just those columns.
    over_columns: Arc<dyn PhysicalExpr>,
    /// Whether it has the same rows in every query.
    immutable: bool,
}

impl RowFilter {
    /// Prepares a predicate over `table`'s columns.
    pub(crate) fn new(predicate: Arc<dyn PhysicalExpr>, table: &SchemaRef) -> Result<Self> {
        let mut columns: Vec<usize> = collect_columns(&predicate)
            .iter()
            .map(|column| column.index())
            .collect();
        columns.sort_unstable();
        let mut fields: Vec<_> = columns.iter().map(|&c| Arc::clone(&table.fields()[c])).collect();
        fields.push(Arc::new(Field::new(ROW_NUMBER, DataType::Int64, false)));
        let over_columns = reassign_expr_columns(Arc::clone(&predicate), &Schema::new(fields))?;
        Ok(Self {
            immutable: is_immutable(&predicate),
            over_table: predicate,
            columns,
            over_columns,
        })
    }

    /// Whether it has the same rows in every query, so that a bitmap may be kept for the next one. Not so with a
    /// function that is only stable within a query, such as one that asks who the user is.
    pub(crate) fn is_immutable(&self) -> bool {
        self.immutable
    }

    /// The predicate over batches whose first columns are [`columns`](Self::columns).
    pub(crate) fn over_columns(&self) -> &Arc<dyn PhysicalExpr> {
        &self.over_columns
    }

    /// The rows of a file for which the predicate is true, and whether they were known already.
    ///
    /// `read` says which file; its columns and its pruning are replaced by the filter's. Only the bitmap of an
    /// [immutable](Self::is_immutable) filter may go into a cache that outlives the query.
    pub(crate) async fn rows(
        &self,
        cache: &FilterCache,
        table: &TableFiles,
        read: FileRead<'_>,
        context: &Arc<TaskContext>,
    ) -> Result<(Bitmap, bool)> {
        let key = FilterKey {
            file: FooterKey::of(read.source),
            partition_values: read.file.partition_values.clone(),
            table: table.fields().clone(),
            predicate: Predicate(Arc::clone(&self.over_table)),
        };
        if let Some(known) = cache.0.get(&key) {
            return Ok((known, true));
        }
        let bytes = weight(read.footer.rows);
        let pool = context.memory_pool();
        let memory = take(pool, WHO, bytes).or_else(|_| {
            // What is only remembered gives way to what is asked.
            cache.0.clear();
            take(pool, WHO, bytes)
        })?;
        let rows = Arc::new(Held::new(self.evaluate(table, read, context).await?, memory));
        if has_room_to_keep(pool, 0) {
            cache.0.insert(key, Arc::clone(&rows));
        }
        Ok((rows, false))
    }

    async fn evaluate(
        &self,
        table: &TableFiles,
        read: FileRead<'_>,
        context: &Arc<TaskContext>,
    ) -> Result<RowSet> {
        let mut rows = RowSet::new(read.footer.rows);
        let read = FileRead {
            columns: &self.columns,
            prune_by: Some(Arc::clone(&self.over_table)),
            ..read
        };
        let mut batches = table.read(read, context)?;
        let mut pause = Pause::new();
        while let Some(batch) = batches.try_next().await? {
            pause.if_due().await;
            let mask = matching(&batch, self.over_columns())?;
            let numbers = row_numbers(&batch)?;
            for index in mask.values().set_indices() {
                rows.insert(RowId::new(numbers.value(index).cast_unsigned()));
            }
            debug_assert_eq!(mask.len(), numbers.len(), "one verdict for each row");
        }
        Ok(rows)
    }
}

/// Whether a predicate is made of nothing but columns, constants, operators and immutable functions. Expressions that
/// are not known here may depend on anything.
fn is_immutable(predicate: &Arc<dyn PhysicalExpr>) -> bool {
    let may_change = predicate.exists(|e| {
        if let Some(call) = e.downcast_ref::<ScalarFunctionExpr>() {
            return Ok(call.fun().signature().volatility != Volatility::Immutable);
        }
        let is_known = e.is::<Column>()
            || e.is::<Literal>()
            || e.is::<BinaryExpr>()
            || e.is::<NotExpr>()
            || e.is::<IsNullExpr>()
            || e.is::<IsNotNullExpr>()
            || e.is::<InListExpr>()
            || e.is::<LikeExpr>()
            || e.is::<CaseExpr>()
            || e.is::<CastExpr>()
            || e.is::<TryCastExpr>()
            || e.is::<NegativeExpr>();
        Ok(!is_known)
    });
    may_change.is_ok_and(|may_change| !may_change)
}

/// What a bitmap is true of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FilterKey {
    file: FooterKey,
    partition_values: Vec<ScalarValue>,
    table: Fields,
    predicate: Predicate,
}

/// A predicate as part of a key; by itself the pointer cannot derive equality.
#[derive(Clone, Debug)]
struct Predicate(Arc<dyn PhysicalExpr>);

impl PartialEq for Predicate {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref() == other.0.as_ref()
    }
}

impl Eq for Predicate {}

impl Hash for Predicate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Bitmaps found so far, shared by all queries of a session or by the parts of one query; the least useful go first.
#[derive(Debug)]
pub(crate) struct FilterCache(Cache<FilterKey, Bitmap, Bytes>);

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<FilterKey, Bitmap> for Bytes {
    fn weight(&self, _key: &FilterKey, rows: &Bitmap) -> u64 {
        rows.bytes()
    }
}

/// What a bitmap over so many rows takes, with what it remembers of the nodes of an index.
fn weight(rows: u64) -> usize {
    usize::try_from(RowSet::most_bytes(rows)).unwrap_or(usize::MAX)
}

impl FilterCache {
    /// A cache of this many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(undivided(1024, bytes, Bytes))
    }

    /// How many bytes it may hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    /// Changes how many bytes it may hold.
    pub(crate) fn resize(&self, bytes: u64) {
        if self.0.capacity() != bytes {
            self.0.set_capacity(bytes);
        }
    }
}
