//! A sidecar as an inventory tells of it.

use std::sync::Arc;

use crate::format::SourceIdentity;
use crate::sidecar::open_cache::Sidecar;
use crate::sidecar::place::location::Location;
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::reason::Reason;

/// A sidecar as found in a directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SidecarEntry {
    /// Its name: Parquet file, column, metric.
    pub name: SidecarName,
    /// Its address.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// The sidecar, or why it does not open. Whether it is fresh, [`state`](Self::state) says.
    pub opened: Result<Arc<Sidecar>, Reason>,
    /// Which of the locations asked about it belongs to; none if its Parquet file is not among them.
    pub location: Option<usize>,
    /// Its Parquet file, if that is gone: then it is of no use, and [`SidecarStore::remove_named`](crate::sidecar::SidecarStore::remove_named) removes it.
    pub orphan_of: Option<Location>,
    /// Whether a session is building its successor right now.
    pub building: bool,
}

impl SidecarEntry {
    /// Whether it can be used for the Parquet file as it is now.
    ///
    /// # Errors
    ///
    /// The reason if it cannot.
    pub fn state(&self, found: &SourceIdentity) -> Result<(), Reason> {
        let sidecar = self.opened.as_ref().map_err(Clone::clone)?;
        let column = self
            .name
            .column()
            .unwrap_or_else(|| sidecar.meta().table_column.clone());
        sidecar.check(&column, self.name.metric, found)
    }
}
