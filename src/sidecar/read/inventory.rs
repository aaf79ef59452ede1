//! All sidecars of a table's directories, whatever their state.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::entry::SidecarEntry;
use super::orphans::{add_emptied_directories, orphans};
use super::places::Places;
use crate::sidecar::error::StoreError;
use crate::sidecar::local::directory::Directory;
use crate::sidecar::local::part_file::is_claimed;
use crate::sidecar::local::unfinished::unfinished;
use crate::sidecar::place::home::{Home, LocalDir, RemoteDir};
use crate::sidecar::place::location::Location;
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::reason::Reason;
use crate::sidecar::remote::download::{FetchError, blocking};
use crate::sidecar::remote::listing_cache::Patience;
use crate::sidecar::remote::requests::Objects;
use crate::sidecar::store::SidecarStore;

impl SidecarStore {
    /// All sidecars in the directories of these files, those of other files included, in order of their address.
    ///
    /// Each directory is listed once and now. Remote sidecars are fetched to be opened.
    ///
    /// # Errors
    ///
    /// If a directory cannot be listed.
    pub async fn list(self: &Arc<Self>, files: &[Location]) -> Result<Vec<SidecarEntry>, StoreError> {
        let mut places = Places::default();
        for (index, file) in files.iter().enumerate() {
            places.add(file, Some(index));
        }
        let options = self.options();
        add_emptied_directories(&mut places, &options).await;
        // One directory after the other would take long where each partition of a table has its own.
        let listing = places.0.into_values().map(async |mut place| {
            let mut found = match &place.home {
                Home::Local(dir) => self.list_local(dir).await?,
                Home::Remote(dir) => self.list_remote(dir, place.listed.take()).await?,
            };
            for entry in &mut found {
                entry.location = place.names.get(entry.name.parquet.as_str()).copied();
            }
            orphans(&place, &mut found, &options).await;
            Ok(found)
        });
        let found: Vec<Vec<_>> = stream::iter(listing.collect::<Vec<_>>())
            .buffer_unordered(options.lookup_parallel.max(1))
            .try_collect()
            .await?;
        Ok(without_doubles(found.concat()))
    }

    async fn list_local(&self, dir: &LocalDir) -> Result<Vec<SidecarEntry>, StoreError> {
        let at = dir.path();
        let found = blocking(move || match std::fs::read_dir(&at) {
            Ok(entries) => {
                let open = Directory::open(&at)?;
                Ok(entries
                    .flatten()
                    .filter_map(|entry| {
                        let name = SidecarName::parse(entry.file_name().to_str()?)?;
                        let bytes = entry.metadata().ok()?.len();
                        let building = is_claimed(&open, &unfinished(&name));
                        Some((name, bytes, building))
                    })
                    .collect::<Vec<_>>())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        });
        let found = found
            .await
            .map_err(|error| StoreError::io(dir.path().display(), error))?;
        let home = Home::Local(dir.clone());
        let mut entries = Vec::with_capacity(found.len());
        for (name, bytes, building) in found {
            let opened = self.open(&home, &name).await;
            entries.push(SidecarEntry {
                url: home.address(&name),
                name,
                bytes,
                opened,
                location: None,
                orphan_of: None,
                building,
            });
        }
        Ok(entries)
    }

    async fn list_remote(
        &self,
        dir: &RemoteDir,
        listed: Option<Objects>,
    ) -> Result<Vec<SidecarEntry>, StoreError> {
        let options = self.options();
        let objects = match listed {
            Some(objects) => Arc::new(objects),
            None => {
                let objects = self.listings.get_now(dir, Patience::from(&*options)).await;
                objects.map_err(|detail| StoreError::Unavailable {
                    at: dir.address(&dir.dir),
                    source: detail.into(),
                })?
            }
        };
        let named = objects
            .iter()
            .filter_map(|(name, object)| Some((SidecarName::parse(name)?, object.clone())));
        let opening = named.map(|(name, object)| {
            let options = &options;
            async move {
                let opened = match self.open_object(dir, &object, options).await {
                    Ok(sidecar) => Ok(sidecar),
                    Err(FetchError::Failed(reason)) => Err(reason),
                    Err(FetchError::Changed) => Err(Reason::Unavailable {
                        detail: "it changed while it was listed".to_owned(),
                    }),
                };
                SidecarEntry {
                    url: dir.address(&dir.path(&name)),
                    name,
                    bytes: object.size,
                    opened,
                    location: None,
                    orphan_of: None,
                    building: false,
                }
            }
        });
        let parallel = options.lookup_parallel.max(1);
        Ok(stream::iter(opening.collect::<Vec<_>>())
            .buffer_unordered(parallel)
            .collect()
            .await)
    }
}

/// One entry for each sidecar of a file that has it in several places: the first that opens, or else the first.
fn without_doubles(mut entries: Vec<SidecarEntry>) -> Vec<SidecarEntry> {
    entries.sort_by(|one, other| one.url.cmp(&other.url));
    let mut first: HashMap<(usize, String), usize> = HashMap::new();
    let mut kept: Vec<SidecarEntry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(location) = entry.location else {
            kept.push(entry);
            continue;
        };
        match first.entry((location, entry.name.to_string())) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(kept.len());
                kept.push(entry);
            }
            std::collections::hash_map::Entry::Occupied(slot) => {
                let known = &mut kept[*slot.get()];
                if known.opened.is_err() && entry.opened.is_ok() {
                    *known = entry;
                }
            }
        }
    }
    kept
}
