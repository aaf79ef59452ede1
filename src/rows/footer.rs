//! Parquet footers: the metadata with its page index, and the hash that binds a sidecar to a file.
//!
//! A footer is read once and cached by what the store says of the file (size, modification time,
//! e-tag). The page index is loaded with it, always: without it, fetching ten rows decodes whole
//! column chunks, a thousand times the work.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::parquet::arrow::async_reader::MetadataFetch;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::xxh3_128;

use super::memory::{take_to_keep, undivided};
use super::source_file::SourceFile;
use super::version::Version;

/// How many bytes at the end of a file are read at first. Larger footers take a second read.
const TAIL: u64 = 64 * 1024;

/// How many bytes of footers are kept. The footer of a file with many pages is large: its page index lists each page
/// of each column.
const BYTES_KEPT: u64 = 256 << 20;

/// About how many footers that is, for the size of the cache's table.
const FOOTERS_KEPT: usize = 4096;

/// The name of the memory consumer.
const WHO: &str = "Parquet footers kept for vector search";

/// What the end of a Parquet file says.
#[derive(Debug)]
pub(crate) struct Footer {
    /// The metadata, with column and offset index where the file has them.
    pub metadata: Arc<ParquetMetaData>,
    /// xxh3-128 of the footer and the eight bytes behind it, in hexadecimal.
    pub hash: String,
    /// Rows over all row groups.
    pub rows: u64,
    /// What it takes, if the pool has it to spare.
    memory: Option<MemoryReservation>,
}

impl Footer {
    /// Bytes of the file that belong to this column of its table.
    pub(crate) fn bytes_of_column(&self, name: &str) -> u64 {
        let chunks = self
            .metadata
            .row_groups()
            .iter()
            .flat_map(|group| group.columns());
        chunks
            .filter(|chunk| {
                chunk
                    .column_path()
                    .parts()
                    .first()
                    .is_some_and(|root| root == name)
            })
            .map(|chunk| u64::try_from(chunk.compressed_size()).unwrap_or(0))
            .fold(0, u64::saturating_add)
    }
}

/// A place in a store at a moment: what a cached footer or bitmap is true of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FooterKey {
    store: String,
    location: String,
    size: u64,
    modified: i64,
    tag: Option<String>,
}

impl FooterKey {
    pub(crate) fn of(file: &SourceFile) -> Self {
        Self {
            store: file.store_url.as_str().to_owned(),
            location: file.meta.location.to_string(),
            size: file.meta.size,
            modified: file.meta.last_modified.timestamp_micros(),
            tag: file.tag().map(str::to_owned),
        }
    }
}

/// The footers read so far, shared by all queries of a session.
#[derive(Debug)]
pub(crate) struct FooterCache {
    footers: Cache<FooterKey, Arc<Footer>, Memory>,
    pool: Arc<dyn MemoryPool>,
}

#[derive(Clone, Debug)]
struct Memory;

impl Weighter<FooterKey, Arc<Footer>> for Memory {
    fn weight(&self, key: &FooterKey, footer: &Arc<Footer>) -> u64 {
        (footer.metadata.memory_size() + key.location.len() + size_of::<Footer>()) as u64
    }
}

impl FooterCache {
    /// A cache that registers its memory with this pool.
    pub(crate) fn new(pool: Arc<dyn MemoryPool>) -> Self {
        Self {
            footers: undivided(FOOTERS_KEPT, BYTES_KEPT, Memory),
            pool,
        }
    }

    /// The footer of `file`, from the cache or read now.
    pub(crate) async fn get(&self, file: &SourceFile) -> Result<Arc<Footer>> {
        let key = FooterKey::of(file);
        let footer = self
            .footers
            .get_or_insert_async(&key, self.read(file).map_ok(Arc::new))
            .await?;
        if footer.memory.is_none() {
            self.footers.remove(&key);
        }
        Ok(footer)
    }

    async fn read(&self, file: &SourceFile) -> Result<Footer> {
        let mut footer = read_footer(file).await?;
        footer.memory = take_to_keep(&self.pool, WHO, footer.metadata.memory_size());
        Ok(footer)
    }
}

async fn read_footer(file: &SourceFile) -> Result<Footer> {
    let mut fetch = &mut VersionFetch(Version::open(file)?);
    let size = file.meta.size;
    let damaged = |why: &str| {
        DataFusionError::External(format!("{} is not a Parquet file: {why}", file.meta.location).into())
    };
    if size < 12 {
        return Err(damaged("it is shorter than 12 bytes"));
    }
    let tail = fetch.fetch(size.saturating_sub(TAIL)..size).await?;
    let [.., l0, l1, l2, l3, b'P', b'A', b'R', b'1'] = tail[..] else {
        return Err(damaged("it does not end in PAR1"));
    };
    let footer_len = u64::from(u32::from_le_bytes([l0, l1, l2, l3])) + 8;
    if footer_len > size {
        return Err(damaged("its footer would be longer than the file"));
    }
    let footer = match usize::try_from(footer_len)
        .ok()
        .and_then(|n| tail.len().checked_sub(n))
    {
        Some(start) => tail.slice(start..),
        None => fetch.fetch(size - footer_len..size).await?,
    };
    let hash = format!("{:032x}", xxh3_128(&footer));
    let metadata = ParquetMetaDataReader::decode_metadata(&footer[..footer.len() - 8])?;
    let mut reader =
        ParquetMetaDataReader::new_with_metadata(metadata).with_page_index_policy(PageIndexPolicy::Optional);
    reader.load_page_index(fetch).await?;
    let metadata = Arc::new(reader.finish()?);
    let mut rows = 0_u64;
    for group in metadata.row_groups() {
        let more =
            u64::try_from(group.num_rows()).map_err(|_| damaged("a row group has a negative length"))?;
        rows = rows
            .checked_add(more)
            .ok_or_else(|| damaged("it has too many rows"))?;
    }
    Ok(Footer {
        metadata,
        hash,
        rows,
        memory: None,
    })
}

struct VersionFetch(Version);

impl MetadataFetch for &mut VersionFetch {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move { Ok(self.0.ranges(&[range]).await?.pop().unwrap_or_default()) }.boxed()
    }
}
