//! Mapping sidecars into memory. Besides the kernels (`hnsw/simd/`), the only unsafe code.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use memmap2::Mmap;

use crate::format::{FormatError, View};

/// A mapped sidecar: pages are read from the file as searches touch them.
pub type MappedIndex = View<Mmap>;

/// Why a sidecar could not be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file could not be read, or the temporary one not written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file was read, and is not a sidecar that can be searched.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Opens sidecars by mapping them.
#[derive(Clone, Copy, Debug)]
pub struct MmapLoader;

impl MmapLoader {
    /// Writes the bytes to a temporary file, which vanishes with the index, and maps it: what a search
    /// does not touch may leave memory.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or the bytes are not a sidecar.
    pub fn from_bytes(bytes: &[u8]) -> Result<MappedIndex, LoadError> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        Self::from_file(&file)
    }

    /// Maps a sidecar. Costs the same for any size.
    ///
    /// The file must not be changed while it is mapped; replacing or deleting it is fine.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not a sidecar.
    pub fn open(path: &Path) -> Result<MappedIndex, LoadError> {
        Self::from_file(&File::open(path)?)
    }

    /// Maps an open file; see [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// If the file cannot be mapped or is not a sidecar.
    pub fn from_file(file: &File) -> Result<MappedIndex, LoadError> {
        if file.metadata()?.len() == 0 {
            return Err(FormatError::NotASidecar.into());
        }
        // SAFETY: a map is undefined behaviour only if the file changes underneath it. Sidecars are
        // written once under another name and renamed into place, never modified, and a temporary file
        // has no name that others could open; so the inode keeps its contents until the map is dropped.
        #[expect(unsafe_code, reason = "the only memory map in the crate")]
        let map = unsafe { Mmap::map(file)? };
        // Neighbours in number are neighbours in space, but a walk still jumps: reading ahead would load
        // pages that nobody asked for.
        #[cfg(unix)]
        map.advise(memmap2::Advice::Random)?;
        Ok(View::open(map)?)
    }
}
