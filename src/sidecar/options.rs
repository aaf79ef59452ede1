//! What can be set about where sidecars are kept.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Default of [`SidecarOptions::cache_size`]: 10 GiB.
pub const DEFAULT_CACHE_SIZE: u64 = 10 << 30;

/// Default of [`SidecarOptions::max_open`].
pub const DEFAULT_MAX_OPEN: usize = 4096;

/// Default of [`SidecarOptions::verify_wait`].
///
/// Trades the time to the first answer against what damage can do to it. At the 5 to 10 GB/s at which bytes that the
/// system has in memory are read and hashed, a file of this size takes 6 to 12 ms, about as much as planning the first
/// query of a session; from a disk it takes as long as the exact scan would take for a hundredth of the table.
pub const DEFAULT_VERIFY_WAIT: u64 = 64 << 20;

/// Memory that was granted; dropping it gives it back.
pub type MemoryGrant = Box<dyn Any + Send + Sync>;

/// Grants memory for sidecars that are read to the heap, or refuses it.
#[derive(Clone)]
pub struct MemorySource(Arc<dyn Fn(u64) -> Option<MemoryGrant> + Send + Sync>);

impl MemorySource {
    /// A source that asks `grant` for so many bytes.
    pub fn new(grant: impl Fn(u64) -> Option<MemoryGrant> + Send + Sync + 'static) -> Self {
        Self(Arc::new(grant))
    }

    pub(crate) fn take(&self, bytes: u64) -> Option<MemoryGrant> {
        self.0(bytes)
    }
}

impl Default for MemorySource {
    /// Grants everything.
    fn default() -> Self {
        Self::new(|_| Some(Box::new(())))
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemorySource")
    }
}

/// How sidecars are opened.
#[derive(Clone, Debug, Default)]
pub enum Load {
    /// Mapped: pages are read as searches touch them, and the system takes them back as it needs to.
    #[default]
    Mmap,
    /// Read to the heap, if there is memory: nothing that happens to the file afterwards can do harm.
    Memory(MemorySource),
}

impl Load {
    /// Whether a sidecar that was opened in one way would be opened so.
    pub(crate) fn is_to_memory(&self) -> bool {
        matches!(self, Load::Memory(_))
    }
}

/// Settings of a [`SidecarStore`](super::SidecarStore).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SidecarOptions {
    /// Where local copies of remote sidecars go; by default the user's cache directory.
    pub cache_dir: Option<PathBuf>,
    /// How many bytes of copies are kept; the least recently used go first.
    pub cache_size: u64,
    /// How many sidecars are kept open. Each costs one map and no file handle.
    pub max_open: usize,
    /// For how long a listing of a remote directory is believed when it does not show a sidecar. Default 10 s.
    pub listing_ttl: Duration,
    /// For how long a store or sidecar that failed is not asked again. Default 15 s.
    pub retry_after: Duration,
    /// How long one answer of a store is waited for. Default 60 s.
    pub timeout: Duration,
    /// The size of the parts in which a remote sidecar is read and written. Default 8 MiB.
    pub fetch_part: u64,
    /// How many parts are under way at once. Default 8.
    pub fetch_parallel: usize,
    /// How many sidecars are looked up at once. Default 16.
    pub lookup_parallel: usize,
    /// How sidecars are opened.
    pub load: Load,
    /// A lookup waits until all bytes of a sidecar of up to this size were checked, once for each file in a process;
    /// larger ones are checked soon after.
    pub verify_wait: u64,
}

impl Default for SidecarOptions {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache_size: DEFAULT_CACHE_SIZE,
            max_open: DEFAULT_MAX_OPEN,
            listing_ttl: Duration::from_secs(10),
            retry_after: Duration::from_secs(15),
            timeout: Duration::from_secs(60),
            fetch_part: 8 << 20,
            fetch_parallel: 8,
            lookup_parallel: 16,
            load: Load::default(),
            verify_wait: DEFAULT_VERIFY_WAIT,
        }
    }
}
