//! Bytes of a Parquet file, all of the one version that its listing described.
//!
//! Row ids, page offsets and a sidecar mean nothing in another file of the same name. So a local file is opened once
//! and read through its handle, which a file renamed into its place does not disturb; and after each read it is asked
//! whether it was written to. An object store is asked for the version by its e-tag, and what it answers is compared.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use object_store::{
    GetOptions, GetRange, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, coalesce_ranges,
};

use super::source_file::SourceFile;
use crate::stamp::Stamp;

/// Local reads up to this many bytes are done at once, where they are asked for: for pages that are in memory already
/// a read takes microseconds, less than handing it to another thread. It is also the most that is read after a query
/// was dropped.
const READ_HERE: u64 = 1 << 20;

/// The file is not the one that was listed any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} was replaced or changed after it was listed; run the query again, and create the table again if that \
     does not help"
)]
pub(crate) struct Replaced {
    path: String,
}

impl Replaced {
    fn new(file: &SourceFile) -> Self {
        Self {
            path: file.meta.location.to_string(),
        }
    }
}

/// A file of which only the listed version is read.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    file: SourceFile,
    local: Option<Arc<File>>,
}

impl Version {
    /// Opens the file, if it is local and still the one that was listed.
    pub(crate) fn open(file: &SourceFile) -> ParquetResult<Self> {
        let local = match &file.local {
            None => None,
            Some(local) => {
                let opened = File::open(&local.path).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => external(Replaced::new(file)),
                    _ => external(error),
                })?;
                check_local(file, &opened)?;
                Some(Arc::new(opened))
            }
        };
        Ok(Self {
            file: file.clone(),
            local,
        })
    }

    /// Reads these ranges.
    pub(crate) async fn ranges(&self, ranges: &[Range<u64>]) -> ParquetResult<Vec<Bytes>> {
        let Some(local) = &self.local else {
            return coalesce_ranges(
                ranges,
                |range| self.remote_range(range),
                OBJECT_STORE_COALESCE_DEFAULT,
            )
            .await;
        };
        let total: u64 = ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        let mut read = Vec::with_capacity(ranges.len());
        for range in ranges {
            read.push(if total <= READ_HERE {
                read_range(local, range)?
            } else {
                read_in_pieces(local, range).await?
            });
        }
        check_local(&self.file, local)?;
        Ok(read)
    }

    async fn remote_range(&self, range: Range<u64>) -> ParquetResult<Bytes> {
        let meta = &self.file.meta;
        let length = range.end.saturating_sub(range.start);
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            // A weak tag never matches a condition.
            if_match: meta.e_tag.clone().filter(|tag| !tag.starts_with("W/")),
            ..GetOptions::default()
        };
        let answer = match self.file.store.get_opts(&meta.location, options).await {
            Ok(answer) => answer,
            Err(object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }) => {
                return Err(external(Replaced::new(&self.file)));
            }
            Err(error) => return Err(external(error)),
        };
        if !is_version(meta, &answer.meta) {
            return Err(external(Replaced::new(&self.file)));
        }
        let bytes = answer.bytes().await.map_err(external)?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(external(Replaced::new(&self.file)))
        }
    }
}

/// Whether an answer is of the listed version. Without e-tags its size and its time, in whole seconds, must do.
fn is_version(listed: &ObjectMeta, found: &ObjectMeta) -> bool {
    let same_tag = match (&listed.e_tag, &found.e_tag) {
        (Some(listed), Some(found)) => listed == found,
        _ => listed.last_modified.timestamp() == found.last_modified.timestamp(),
    };
    same_tag && listed.size == found.size
}

/// Whether an open file is the one that was looked for, not written since.
fn check_local(file: &SourceFile, opened: &File) -> ParquetResult<()> {
    let now = Stamp::of(&opened.metadata()?);
    match &file.local {
        Some(local) if local.stamp.is_unwritten(&now) => Ok(()),
        _ => Err(external(Replaced::new(file))),
    }
}

/// Reads where it may block, a piece at a time: a query that is dropped reads no further than the piece it is at.
async fn read_in_pieces(file: &Arc<File>, range: &Range<u64>) -> ParquetResult<Bytes> {
    let mut bytes = Vec::with_capacity(length(range)?);
    let mut start = range.start;
    while start < range.end {
        let piece = start..range.end.min(start + READ_HERE);
        start = piece.end;
        let file = Arc::clone(file);
        let read = SpawnedTask::spawn_blocking(move || read_range(&file, &piece));
        bytes.extend_from_slice(&read.await.map_err(external)??);
    }
    Ok(bytes.into())
}

fn read_range(file: &File, range: &Range<u64>) -> ParquetResult<Bytes> {
    let mut bytes = vec![0; length(range)?];
    read_exact_at(file, &mut bytes, range.start)?;
    Ok(bytes.into())
}

fn length(range: &Range<u64>) -> ParquetResult<usize> {
    usize::try_from(range.end.saturating_sub(range.start))
        .map_err(|_| ParquetError::General("a range longer than memory".into()))
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

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ParquetError {
    ParquetError::External(Box::new(error))
}
