//! How Parquet bytes reach DataFusion's scan: with the cached footer, and without a detour for small local reads.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::{BoxFuture, FutureExt, TryFutureExt};

use super::footer::{Footer, SourceFile, describes};

/// Local reads up to this many bytes are done at once, where they are asked for: for pages that are in memory already
/// a read takes microseconds, less than handing it to another thread. Larger reads go through the store.
const READ_HERE: u64 = 1 << 20;

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
        let local = match &self.file.local {
            Some(path) => Some(open_as_listed(&self.file, path)?),
            None => None,
        };
        Ok(Box::new(FooterReader {
            file: self.file.clone(),
            local,
            metadata: Arc::clone(&self.footer.metadata),
            bytes_read: Arc::clone(&self.bytes_read),
        }))
    }
}

/// Opens a local file and makes sure that it is the one whose footer is known: row ids and offsets of another file
/// would give wrong rows.
fn open_as_listed(file: &SourceFile, path: &std::path::Path) -> Result<File> {
    let opened = File::open(path)?;
    if !describes(&file.meta, &opened.metadata()?) {
        return Err(DataFusionError::Execution(format!(
            "{} was replaced while it was read; run the query again",
            file.meta.location
        )));
    }
    Ok(opened)
}

struct FooterReader {
    file: SourceFile,
    local: Option<File>,
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
        if let (Some(local), true) = (&self.local, total <= READ_HERE) {
            let read: ParquetResult<Vec<Bytes>> =
                ranges.iter().map(|range| read_range(local, range)).collect();
            return futures::future::ready(read).boxed();
        }
        async move {
            self.file
                .store
                .get_ranges(&self.file.meta.location, &ranges)
                .await
                .map_err(|e| ParquetError::External(Box::new(e)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        futures::future::ready(Ok(Arc::clone(&self.metadata))).boxed()
    }
}

fn read_range(file: &File, range: &Range<u64>) -> ParquetResult<Bytes> {
    let len = usize::try_from(range.end.saturating_sub(range.start))
        .map_err(|_| ParquetError::General("a range longer than memory".into()))?;
    let mut bytes = vec![0; len];
    read_exact_at(file, &mut bytes, range.start)?;
    Ok(bytes.into())
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}
