//! Removing a sidecar: under the same claim as building it, so that neither disturbs the other.

use std::io;
use std::sync::Arc;

use object_store::ObjectStoreExt;

use crate::hnsw::VectorMetric;
use crate::sidecar::error::StoreError;
use crate::sidecar::local::sidecar_dir::{Missing, remove_empty};
use crate::sidecar::local::unfinished::{claim_local, unfinished};
use crate::sidecar::place::home::Home;
use crate::sidecar::place::location::Location;
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::remote::download::blocking;
use crate::sidecar::remote::requests::within;
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

    /// Removes the sidecar of this name from all places where the file may have sidecars; false if there was none.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub async fn remove_named(
        self: &Arc<Self>,
        location: &Location,
        name: &SidecarName,
    ) -> Result<bool, StoreError> {
        let mut existed = false;
        for home in location.homes() {
            existed |= self.remove_from(&home, name).await?;
        }
        Ok(existed)
    }

    pub(crate) async fn remove_from(
        self: &Arc<Self>,
        home: &Home,
        name: &SidecarName,
    ) -> Result<bool, StoreError> {
        let url = home.address(name);
        let existed = match home {
            Home::Local(dir) => {
                self.open.forget(&url);
                let (path, at) = (dir.path().join(name.to_string()), dir.clone());
                let unfinished = path.with_file_name(unfinished(name));
                let is_there = blocking(move || {
                    let is_there = [path, unfinished]
                        .iter()
                        .any(|path| std::fs::symlink_metadata(path).is_ok());
                    if !is_there {
                        remove_empty(&at);
                    }
                    Ok(is_there)
                });
                if !is_there.await.unwrap_or(false) {
                    return Ok(false);
                }
                let Some(claim) = claim_local(dir.clone(), name.clone(), Missing::Leave).await? else {
                    return Ok(false);
                };
                let (dir, name) = (dir.clone(), name.to_string());
                let removed = blocking(move || {
                    let removed = match claim.dir().remove(name.as_ref()) {
                        Ok(()) => claim.dir().sync().map(|()| true),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                        Err(error) => Err(error),
                    };
                    drop(claim);
                    remove_empty(&dir);
                    removed
                });
                removed.await.map_err(|error| StoreError::io(&url, error))?
            }
            Home::Remote(dir) => {
                let _turn = self.turn(&url)?;
                let path = dir.path(name);
                let timeout = self.options().timeout;
                match within(timeout, &url, dir.store.head(&path)).await? {
                    Err(object_store::Error::NotFound { .. }) => false,
                    Err(error) => return Err(StoreError::object(&url, error)),
                    Ok(_) => match within(timeout, &url, dir.store.delete(&path)).await? {
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
