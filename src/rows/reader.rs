//! How Parquet bytes reach DataFusion's scan: with the cached footer, and only of the file that it is the footer of.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::Result;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::{BoxFuture, FutureExt, TryFutureExt};

use super::footer::Footer;
use super::source_file::SourceFile;
use super::version::Version;

/// Gives readers of one file, whose footer is known.
pub(crate) struct FooterReaderFactory {
    file: SourceFile,
    footer: Arc<Footer>,
    bytes_read: Arc<AtomicU64>,
}

impl fmt::Debug for FooterReaderFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FooterReaderFactory")
            .field("file", &self.file.meta.location)
            .finish_non_exhaustive()
    }
}

impl FooterReaderFactory {
    /// Counts the bytes that its readers read into `bytes_read`.
    pub(crate) fn new(file: SourceFile, footer: Arc<Footer>, bytes_read: Arc<AtomicU64>) -> Self {
        Self {
            file,
            footer,
            bytes_read,
        }
    }
}

impl ParquetFileReaderFactory for FooterReaderFactory {
    fn create_reader(
        &self,
        _partition: usize,
        _file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(FooterReader {
            version: Version::open(&self.file)?,
            metadata: Arc::clone(&self.footer.metadata),
            bytes_read: Arc::clone(&self.bytes_read),
        }))
    }
}

struct FooterReader {
    version: Version,
    metadata: Arc<ParquetMetaData>,
    bytes_read: Arc<AtomicU64>,
}

impl AsyncFileReader for FooterReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.get_byte_ranges(vec![range])
            .map_ok(|mut all| all.pop().unwrap_or_default())
            .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        let total: u64 = ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        self.bytes_read.fetch_add(total, Ordering::Relaxed);
        async move { self.version.ranges(&ranges).await }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        futures::future::ready(Ok(Arc::clone(&self.metadata))).boxed()
    }
}
