//! Numbers of nodes, slots and layers as they are stored, and of indexes in this process.

use std::sync::atomic::{AtomicU64, Ordering};

/// A little-endian u32 at any address.
pub(crate) type Le32 = [u8; 4];

/// Marks an unused place of a neighbor list; the list ends there.
pub(crate) const NO_LINK: u32 = u32::MAX;
/// Stands in the row map for a row without a vector.
pub(crate) const NO_SLOT: u32 = u32::MAX;
/// The greatest number of layers.
pub(crate) const MAX_LEVELS: usize = 32;

/// Tells indexes apart while the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexId(u64);

impl IndexId {
    /// One that was not given before.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
