//! Filters to bitmaps: which rows of a file satisfy a predicate.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use futures::TryStreamExt;

use super::scan::{FileRead, ROW_NUMBER, TableFiles, matching, row_numbers};
use crate::hnsw::RowSet;
use crate::id::RowId;

/// A predicate over a table's columns, ready for its files.
#[derive(Clone, Debug)]
pub(crate) struct RowFilter {
    /// Over the table's schema; leaves out row groups and pages.
    pub over_table: Arc<dyn PhysicalExpr>,
    /// The columns that it names, in the table's schema, in ascending order.
    pub columns: Vec<usize>,
    /// The same predicate over a batch of just those columns.
    over_columns: Arc<dyn PhysicalExpr>,
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
            over_table: predicate,
            columns,
            over_columns,
        })
    }

    /// The predicate over batches whose first columns are [`columns`](Self::columns).
    pub(crate) fn over_columns(&self) -> &dyn PhysicalExpr {
        self.over_columns.as_ref()
    }

    /// The rows of a file for which the predicate is true.
    ///
    /// `read` says which file; its columns and its pruning are replaced by the filter's.
    pub(crate) async fn rows(
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
        while let Some(batch) = batches.try_next().await? {
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

impl fmt::Display for RowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.over_table.fmt(f)
    }
}
