//! One file of a table scan, read in our own way: some columns with row numbers, all rows or selected ones.
//!
//! A table's own scan is taken apart (its files, schema, Parquet options, schema adapter) and put together again for
//! one file. What comes out has the table's types, whatever the file's are.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use datafusion::arrow::array::{Array, BooleanArray, BooleanBufferBuilder, Int64Array, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use datafusion::common::cast::as_int64_array;
use datafusion::common::internal_datafusion_err;
use datafusion::datasource::TableProvider;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::parquet::arrow::RowNumber;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;

use super::footer::Footer;
use super::reader::FooterReaderFactory;
use super::source_file::SourceFile;

/// The name of the row number column. A table that has a column of this name is not searched through an index.
pub(crate) const ROW_NUMBER: &str = "__datafusion_hnsw_row";

/// A table's scan taken apart.
#[derive(Clone, Debug)]
pub(crate) struct TableFiles {
    config: FileScanConfig,
    source: ParquetSource,
    schema: TableSchema,
}

impl TableFiles {
    /// Takes a scan apart, if it reads Parquet files and nothing else.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let scan = plan.downcast_ref::<DataSourceExec>()?;
        let (config, source) = scan.downcast_to_file_source::<ParquetSource>()?;
        if config.limit.is_some()
            || config
                .file_groups
                .iter()
                .any(|g| g.iter().any(|f| f.range.is_some()))
        {
            return None;
        }
        let schema = source_schema(source);
        let row_number = Field::new(ROW_NUMBER, DataType::Int64, false).with_extension_type(RowNumber);
        if schema.table_schema().column_with_name(ROW_NUMBER).is_some() {
            return None;
        }
        let with_rows = TableSchemaBuilder::new(Arc::clone(schema.file_schema()))
            .with_table_partition_cols(schema.table_partition_cols().clone())
            .with_virtual_columns(vec![Arc::new(row_number)])
            .build();
        Some(Self {
            config: config.clone(),
            source: source.clone(),
            schema: with_rows,
        })
    }

    /// The files, in the order of the scan's groups.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PartitionedFile> {
        self.config.file_groups.iter().flat_map(FileGroup::iter)
    }

    /// The table's schema.
    pub(crate) fn schema(&self) -> &SchemaRef {
        self.schema.schema_without_virtual_columns()
    }

    /// The table's columns.
    pub(crate) fn fields(&self) -> &Fields {
        self.schema().fields()
    }

    /// The store that holds all of them.
    pub(crate) fn store_url(&self) -> &datafusion::execution::object_store::ObjectStoreUrl {
        &self.config.object_store_url
    }

    /// The scan that was taken apart, leaving out row groups and pages in which no row can satisfy this predicate.
    pub(crate) fn pruned_by(&self, predicate: &Arc<dyn PhysicalExpr>) -> Arc<dyn ExecutionPlan> {
        let source = self.source.with_predicate(Arc::clone(predicate));
        let config = FileScanConfigBuilder::from(self.config.clone())
            .with_source(Arc::new(source))
            .build();
        DataSourceExec::from_data_source(config)
    }

    /// Reads one file.
    ///
    /// The stream's columns are `read.columns` (indices into the table's schema), then the row number (`Int64`).
    pub(crate) fn read(
        &self,
        read: FileRead<'_>,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let row_number = self.schema.schema_without_virtual_columns().fields().len();
        let mut columns = read.columns.to_vec();
        columns.push(row_number);

        let factory = FooterReaderFactory::new(
            read.source.clone(),
            Arc::clone(read.footer),
            Arc::clone(read.bytes_read),
        );
        let mut source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(self.source.table_parquet_options().clone())
            .with_pushdown_filters(false)
            .with_parquet_file_reader_factory(Arc::new(factory));
        if let Some(predicate) = read.prune_by {
            source = source.with_predicate(predicate);
        }
        let mut file = read.file.clone();
        file.statistics = None;
        file.ordering = None;
        if let Some(selection) = read.selection {
            file = file.with_extension(ParquetRowSelection::new(selection));
        }
        let config = FileScanConfigBuilder::new(self.config.object_store_url.clone(), Arc::new(source))
            .with_file_groups(vec![FileGroup::new(vec![file])])
            .with_projection_indices(Some(columns))?
            .with_expr_adapter(self.config.expr_adapter_factory.clone())
            .build();
        DataSourceExec::from_data_source(config).execute(0, Arc::clone(context))
    }
}

/// The schema a scan reads with, or one built from it for a source that does not say.
fn source_schema(source: &ParquetSource) -> TableSchema {
    use datafusion::datasource::physical_plan::FileSource;
    source.table_schema().clone()
}

/// What to read of a file.
pub(crate) struct FileRead<'a> {
    /// The file as the scan names it, with its partition values.
    pub file: &'a PartitionedFile,
    /// The same file where it lies.
    pub source: &'a SourceFile,
    /// Its footer.
    pub footer: &'a Arc<Footer>,
    /// Columns of the table's schema, file and partition columns.
    pub columns: &'a [usize],
    /// Only these rows; all when `None`.
    pub selection: Option<RowSelection>,
    /// Leaves out row groups and pages in which no row can satisfy this; rows that do not satisfy it may remain.
    pub prune_by: Option<Arc<dyn PhysicalExpr>>,
    /// Counts the bytes read.
    pub bytes_read: &'a Arc<AtomicU64>,
}

/// The row numbers of a batch that [`TableFiles::read`] gave: its last column.
pub(crate) fn row_numbers(batch: &RecordBatch) -> Result<&Int64Array> {
    let last = batch
        .columns()
        .last()
        .ok_or_else(|| internal_datafusion_err!("a file was read without its row numbers"))?;
    as_int64_array(last)
}

/// Keeps the rows of `batch` for which `predicate` (over the batch's own columns) is true; NULL counts as false.
///
/// # Errors
///
/// A [`FilterFailed`] if the predicate has no value for some row that all conditions before it let through.
pub(crate) fn matching(batch: &RecordBatch, predicate: &Arc<dyn PhysicalExpr>) -> Result<BooleanArray> {
    // An AND may look at its right side where its left side is false: `num <> 0 AND 10 / num > 2`.
    verdicts(batch, predicate.as_ref())
        .or_else(|_| matching_in_turn(batch, predicate))
        .map_err(|error| DataFusionError::External(Box::new(FilterFailed(error))))
}

/// The same, one condition after the other, each only for the rows that those before it let through. This is how
/// DataFusion's reader of Parquet files applies filters that are pushed down to it.
fn matching_in_turn(batch: &RecordBatch, predicate: &Arc<dyn PhysicalExpr>) -> Result<BooleanArray> {
    let mut passed: Vec<usize> = (0..batch.num_rows()).collect();
    let mut rows = batch.clone();
    for condition in split_conjunction(predicate) {
        let mask = verdicts(&rows, condition.as_ref())?;
        rows = filter_record_batch(&rows, &mask)?;
        passed = mask.values().set_indices().map(|at| passed[at]).collect();
    }
    let mut mask = BooleanBufferBuilder::new(batch.num_rows());
    mask.append_n(batch.num_rows(), false);
    for row in passed {
        mask.set_bit(row, true);
    }
    Ok(BooleanArray::new(mask.finish(), None))
}

/// A filter has no value for a row. Whether the query fails of it is DataFusion's to say, by the order in which its
/// own plan looks at rows and conditions.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FilterFailed(DataFusionError);

impl FilterFailed {
    /// Whether this is why a search failed.
    pub(crate) fn is(error: &DataFusionError) -> bool {
        matches!(error, DataFusionError::External(error) if error.is::<Self>())
    }

    /// The filter's own error, if this is one.
    pub(crate) fn unwrapped(error: DataFusionError) -> DataFusionError {
        match error {
            DataFusionError::External(error) => match error.downcast::<Self>() {
                Ok(failed) => failed.0,
                Err(error) => DataFusionError::External(error),
            },
            error => error,
        }
    }
}

fn verdicts(batch: &RecordBatch, predicate: &dyn PhysicalExpr) -> Result<BooleanArray> {
    let mask = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
    let mask = datafusion::common::cast::as_boolean_array(&mask)?;
    Ok(match mask.null_count() {
        0 => mask.clone(),
        _ => datafusion::arrow::compute::prep_null_mask_filter(mask),
    })
}

/// Whether a provider's table is a listing of Parquet files.
pub(crate) fn is_parquet_listing(provider: &dyn TableProvider) -> bool {
    use datafusion::datasource::file_format::FileFormat;
    use datafusion::datasource::file_format::parquet::ParquetFormat;
    use datafusion::datasource::listing::ListingTable;
    provider.downcast_ref::<ListingTable>().is_some_and(|table| {
        let format: &dyn FileFormat = table.options().format.as_ref();
        (format as &dyn std::any::Any).is::<ParquetFormat>()
    })
}
