//! Removing a sidecar: under the same claim as building it, so that neither disturbs the other.

use std::io;
use std::sync::Arc;

use object_store::ObjectStoreExt;

use crate::hnsw::VectorMetric;
use crate::sidecar::error::StoreError;
use crate::sidecar::local::part_file::sync_dir;
use crate::sidecar::local::unfinished::{Missing, claim_local};
use crate::sidecar::place::location::{Home, Location};
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::remote::download::blocking;
use crate::sidecar::store::SidecarStore;

impl SidecarStore {
    /// Removes the sidecar of this column and metric; false if there was none.
    ///
    /// Queries that use it finish with it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] while it is being built; others if it cannot be removed.
    pub async fn remove(
        self: &Arc<Self>,
        location: &Location,
        column: &str,
        metric: VectorMetric,
    ) -> Result<bool, StoreError> {
        self.remove_named(location, &location.sidecar_name(column, metric))
            .await
    }

    /// Removes the sidecar of this name from where the file has its sidecars; false if there was none.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub async fn remove_named(
        self: &Arc<Self>,
        location: &Location,
        name: &SidecarName,
    ) -> Result<bool, StoreError> {
        let home = location.home();
        let url = home.address(name);
        let existed = match &home {
            Home::Local(dir) => {
                let path = dir.join(name.to_string());
                self.open.forget(&path.to_string_lossy());
                if !dir.exists() {
                    return Ok(false);
                }
                let claim = claim_local(dir.clone(), path.clone(), Missing::None).await?;
                let dir = dir.clone();
                let removed = blocking(move || {
                    let removed = match std::fs::remove_file(&path) {
                        Ok(()) => sync_dir(&path).map(|()| true),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                        Err(error) => Err(error),
                    };
                    drop(claim);
                    // Goes only if it is empty.
                    let _ = std::fs::remove_dir(&dir);
                    removed
                });
                removed.await.map_err(|error| StoreError::io(&url, error))?
            }
            Home::Remote(dir) => {
                let _turn = self.turn(&url)?;
                let path = dir.path(name);
                match dir.store.head(&path).await {
                    Err(object_store::Error::NotFound { .. }) => false,
                    Err(error) => return Err(StoreError::object(&url, error)),
                    Ok(_) => match dir.store.delete(&path).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                            self.listings.note(dir, name, None);
                            true
                        }
                        Err(error) => return Err(StoreError::object(&url, error)),
                    },
                }
            }
        };
        if existed {
            tracing::info!(%url, "removed a sidecar");
        }
        Ok(existed)
    }
}
