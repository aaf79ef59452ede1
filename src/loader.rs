//! Bringing sidecars into memory: mapped, or copied to the heap. Besides the kernels (`hnsw/simd/`), the only unsafe
//! code.
//!
//! # What a map cannot be protected from
//!
//! A mapped file that is made shorter in place ends the process with SIGBUS when a search touches what is gone, and so
//! does a disk that fails to deliver a page. Programs that replace files whole (by rename, as this crate does) do no
//! harm; `cp`, `rsync --inplace` and `truncate` onto a sidecar in use do. The sidecar room compares the file's size,
//! inode and times with those of the file that was mapped before each search and then does without the map, so what
//! remains is a change during a search. [`HeapLoader`] does without a map, at the price of the memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use memmap2::Mmap;

use crate::format::{FormatError, View};

/// A mapped sidecar: pages are read from the file as searches touch them.
pub type MappedIndex = View<Mmap>;

/// The bytes of a sidecar, wherever they are.
#[derive(Debug)]
pub enum SidecarBytes {
    /// In a map of the file.
    Mapped(Mmap),
    /// In a copy on the heap.
    Heap(Vec<u8>),
}

impl AsRef<[u8]> for SidecarBytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            SidecarBytes::Mapped(map) => map,
            SidecarBytes::Heap(bytes) => bytes,
        }
    }
}

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
        Ok(View::open(map(file)?)?)
    }
}

/// Opens sidecars by copying them to the heap: nothing that happens to the file afterwards can do harm.
#[derive(Clone, Copy, Debug)]
pub struct HeapLoader;

impl HeapLoader {
    /// Reads an open file from its beginning to its end.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is longer than memory, or is not a sidecar.
    pub fn from_file(mut file: &File) -> Result<View<SidecarBytes>, LoadError> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(io::Error::other)?;
        io::Seek::rewind(&mut file)?;
        // Not more than was there at first: what was reserved is what was asked for.
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(View::open(SidecarBytes::Heap(bytes))?)
    }
}

/// Maps an open file, as bytes that might as well be a copy of it; see [`MmapLoader::from_file`].
///
/// # Errors
///
/// If the file cannot be mapped or is not a sidecar.
pub fn open_mapped(file: &File) -> Result<View<SidecarBytes>, LoadError> {
    Ok(View::open(SidecarBytes::Mapped(map(file)?))?)
}

fn map(file: &File) -> Result<Mmap, LoadError> {
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
    Ok(map)
}
