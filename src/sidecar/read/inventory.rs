//! All sidecars of a table's directories, whatever their state.

use std::collections::{BTreeMap, HashMap};
use std::path::Path as FsPath;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use crate::format::SourceIdentity;
use crate::sidecar::error::StoreError;
use crate::sidecar::local::part_file::is_claimed;
use crate::sidecar::local::unfinished::unfinished;
use crate::sidecar::open_cache::Sidecar;
use crate::sidecar::place::location::{Home, Location, RemoteDir};
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::reason::Reason;
use crate::sidecar::remote::download::{FetchError, blocking};
use crate::sidecar::remote::listing_cache::Patience;
use crate::sidecar::store::SidecarStore;

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

impl SidecarStore {
    /// All sidecars in the directories of these files, those of other files included, in order of their address.
    ///
    /// Each directory is listed once and now. Remote sidecars are fetched to be opened.
    ///
    /// # Errors
    ///
    /// If a directory cannot be listed.
    pub async fn list(self: &Arc<Self>, files: &[Location]) -> Result<Vec<SidecarEntry>, StoreError> {
        let mut homes: BTreeMap<String, (Home, HashMap<&str, usize>)> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            let home = file.home();
            let key = match &home {
                Home::Local(dir) => dir.display().to_string(),
                Home::Remote(remote) => remote.address(&remote.dir),
            };
            let (_, names) = homes.entry(key).or_insert_with(|| (home, HashMap::new()));
            names.insert(file.parquet.filename().unwrap_or_default(), index);
        }
        // One directory after the other would take long where each partition of a table has its own.
        let listing = homes.into_values().map(async |(home, names)| {
            let mut found = match &home {
                Home::Local(dir) => self.list_local(dir).await?,
                Home::Remote(dir) => self.list_remote(dir).await?,
            };
            for entry in &mut found {
                entry.location = names.get(entry.name.parquet.as_str()).copied();
            }
            Ok(found)
        });
        let found: Vec<Vec<_>> = stream::iter(listing.collect::<Vec<_>>())
            .buffer_unordered(self.options().lookup_parallel.max(1))
            .try_collect()
            .await?;
        let mut entries = found.concat();
        entries.sort_by(|one, other| one.url.cmp(&other.url));
        Ok(entries)
    }

    async fn list_local(&self, dir: &FsPath) -> Result<Vec<SidecarEntry>, StoreError> {
        let at = dir.to_owned();
        let found = blocking(move || match std::fs::read_dir(&at) {
            Ok(entries) => Ok(entries
                .flatten()
                .filter_map(|entry| {
                    let name = SidecarName::parse(entry.file_name().to_str()?)?;
                    let bytes = entry.metadata().ok()?.len();
                    Some((name, bytes, is_claimed(&unfinished(&entry.path()))))
                })
                .collect::<Vec<_>>()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        });
        let found = found
            .await
            .map_err(|error| StoreError::io(dir.display(), error))?;
        let home = Home::Local(dir.to_owned());
        let mut entries = Vec::with_capacity(found.len());
        for (name, bytes, building) in found {
            let opened = self.open(&home, &name).await;
            entries.push(SidecarEntry {
                url: home.address(&name),
                name,
                bytes,
                opened,
                location: None,
                building,
            });
        }
        Ok(entries)
    }

    async fn list_remote(&self, dir: &RemoteDir) -> Result<Vec<SidecarEntry>, StoreError> {
        let options = self.options();
        let objects = self.listings.get_now(dir, Patience::from(&*options)).await;
        let objects = objects.map_err(|detail| StoreError::Unavailable {
            at: dir.address(&dir.dir),
            source: detail.into(),
        })?;
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
