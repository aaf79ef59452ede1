//! Where blobs live: beside the Parquet file or elsewhere, on the local file system or in an object store.
//!
//! [`SidecarStore::lookup`] finds the sidecar that describes exactly the bytes at hand, or says why there is none;
//! [`SidecarStore::publish`] puts a new one in place at once. What may go wrong in between (crashes, races, full
//! disks, stores that fail) leaves the old sidecar or the new one, and every query with its exact answer.

mod ball;
mod error;
mod integrity;
mod local;
mod open_cache;
mod options;
mod place;
mod read;
mod reason;
mod redact;
mod remote;
mod source_hash;
mod store;
mod verifier;
mod write;

pub use ball::Ball;
pub use error::StoreError;
pub use open_cache::{LoadedFrom, Sidecar};
pub use options::{
    DEFAULT_CACHE_SIZE, DEFAULT_MAX_OPEN, DEFAULT_VERIFY_WAIT, Load, MemoryGrant, MemorySource,
    SidecarOptions,
};
pub use place::home::SidecarDir;
pub use place::location::Location;
pub use place::name::SidecarName;
pub use read::entry::SidecarEntry;
pub use read::lookup::Lookup;
#[cfg(feature = "datafusion")]
pub(crate) use read::verify::{Allowance, Care};
pub use reason::{Reason, Stale};
pub use store::{SidecarStore, StoreStats};
pub use write::publish::{BuildLease, Published};
