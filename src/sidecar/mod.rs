//! Where blobs live: beside the Parquet file or elsewhere, on the local file system or in an object store.
//!
//! [`SidecarStore::lookup`] finds the sidecar that describes exactly the bytes at hand, or says why there is none;
//! [`SidecarStore::publish`] puts a new one in place at once. What may go wrong in between (crashes, races, full
//! disks, stores that fail) leaves the old sidecar or the new one, and every query with its exact answer.

mod ask;
mod ball;
mod cache_dir;
mod claim;
mod content;
mod error;
mod fetch;
mod list;
mod listing;
mod location;
mod lookup;
mod name;
mod open;
mod opening;
mod options;
mod publish;
mod reason;
mod redact;
mod remove;
mod store;
mod unfinished;
mod upload;

pub use ball::Ball;
pub use error::StoreError;
pub use list::SidecarEntry;
pub use location::{Location, SidecarDir};
pub use lookup::Lookup;
pub use name::SidecarName;
pub use open::{LoadedFrom, Sidecar};
pub use options::{DEFAULT_CACHE_SIZE, DEFAULT_MAX_OPEN, SidecarOptions};
pub use publish::{BuildLease, Published};
pub use reason::{Reason, Stale};
pub use store::{SidecarStore, StoreStats};
