//! What can be set about where sidecars are kept.

use std::path::PathBuf;
use std::time::Duration;

/// Default of [`SidecarOptions::cache_size`]: 10 GiB.
pub const DEFAULT_CACHE_SIZE: u64 = 10 << 30;

/// Default of [`SidecarOptions::max_open`].
pub const DEFAULT_MAX_OPEN: usize = 4096;

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
        }
    }
}
