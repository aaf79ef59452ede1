//! Sidecars whose Parquet file is gone: they are of no use to anybody, and only take room.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path as FsPath, PathBuf};

use object_store::path::Path;

use super::entry::SidecarEntry;
use super::places::{Place, Places};
use crate::sidecar::options::SidecarOptions;
use crate::sidecar::place::home::{Home, RemoteDir, sibling_of_table, table_and_sibling};
use crate::sidecar::place::location::Location;
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::remote::download::blocking;
use crate::sidecar::remote::requests::{ask, cannot_list, list_tree};

/// Directories that are looked through for those of partitions that are gone.
const DIRECTORIES: usize = 10_000;

/// Objects listed in a store for the same.
const OBJECTS: usize = 100_000;

/// A name that a Parquet file could have.
const ANY: &str = "any.parquet";

/// Adds the directories of sidecars of partitions that have no files any more; and notes what is in the directories of
/// stores that are listed for that.
///
/// Whatever goes wrong leaves them out.
pub(super) async fn add_emptied_directories(places: &mut Places, options: &SidecarOptions) {
    let mut locals: BTreeMap<PathBuf, (PathBuf, Location)> = BTreeMap::new();
    let mut remotes: BTreeMap<String, (RemoteDir, Path, Path, Location)> = BTreeMap::new();
    for place in places.0.values() {
        match &place.home {
            Home::Local(dir) => {
                if let Some((table, sidecars)) = dir.table() {
                    locals
                        .entry(sidecars)
                        .or_insert_with(|| (table.to_owned(), place.of.clone()));
                }
            }
            Home::Remote(dir) => {
                if place.of.sidecar_dir.is_none()
                    && sibling_of_table(&place.of.parquet).as_ref() == Some(&dir.dir)
                    && let Some((table, sidecars)) = table_and_sibling(&place.of.parquet)
                    && !cannot_list(dir)
                {
                    remotes
                        .entry(dir.address(&sidecars))
                        .or_insert_with(|| (dir.clone(), table, sidecars, place.of.clone()));
                }
            }
        }
    }
    for (sidecars, (table, of)) in locals {
        let below = blocking(move || Ok(directories(&sidecars))).await;
        for directory in below.unwrap_or_default() {
            let parquet = table.join(directory).join(ANY);
            if let Ok(path) = Path::from_absolute_path(&parquet) {
                places.add(&of.of_other(path, Some(parquet)), None);
            }
        }
    }
    for (dir, table, sidecars, of) in remotes.into_values() {
        let listed = list_tree(&dir, &sidecars, OBJECTS);
        let Ok(Ok(Some(mut found))) = tokio::time::timeout(options.timeout, listed).await else {
            continue;
        };
        for directory in found.keys() {
            let Some(below) = directory.prefix_match(&sidecars) else {
                continue;
            };
            let parts = table.parts().chain(below);
            let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            if let Ok(path) = Path::parse(format!("{}/{ANY}", parts.join("/"))) {
                places.add(&of.of_other(path, None), None);
            }
        }
        for place in places.0.values_mut() {
            if let Home::Remote(home) = &place.home
                && home.store_url == dir.store_url
                && home.dir.prefix_matches(&sidecars)
            {
                place.listed = Some(found.remove(&home.dir).unwrap_or_default());
            }
        }
    }
}

/// The directories below this one, relative to it. Links are not followed.
fn directories(root: &FsPath) -> Vec<PathBuf> {
    let (mut found, mut next) = (vec![], vec![PathBuf::new()]);
    while let Some(directory) = next.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&directory)) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && found.len() < DIRECTORIES {
                found.push(directory.join(entry.file_name()));
                next.push(directory.join(entry.file_name()));
            }
        }
    }
    found
}

/// Finds those of the entries of a place whose Parquet file is gone.
///
/// Those of files that were asked about are there.
pub(super) async fn orphans(place: &Place, entries: &mut [SidecarEntry], options: &SidecarOptions) {
    let unknown = entries.iter_mut().filter(|entry| entry.location.is_none());
    let unknown: Vec<_> = unknown
        .filter_map(|entry| Some((file_of(entry)?, entry)))
        .collect();
    if unknown.is_empty() {
        return;
    }
    let Some(there) = files_beside(&place.of, options).await else {
        return;
    };
    for (file, entry) in unknown {
        if there.contains(&file) {
            continue;
        }
        let local = place.of.local.as_ref().map(|path| path.with_file_name(&file));
        let dir = place.of.parquet.parent().unwrap_or_default();
        let path = match &local {
            Some(local) => Path::from_absolute_path(local).ok(),
            None => Path::parse(format!("{dir}/{file}")).ok(),
        };
        entry.orphan_of = path.map(|path| place.of.of_other(path, local));
    }
}

/// The name of the Parquet file that a sidecar is about; none if its own name does not say and it does not open.
fn file_of(entry: &SidecarEntry) -> Option<String> {
    let name = &entry.name.parquet;
    if SidecarName::is_short_parquet(name) {
        let source = entry.opened.as_ref().ok()?.meta().sources.first()?;
        return (SidecarName::short_parquet(&source.file_name) == *name).then(|| source.file_name.clone());
    }
    Some(name.clone())
}

/// The names of the files in the directory of this one; none if that cannot be found out.
async fn files_beside(of: &Location, options: &SidecarOptions) -> Option<HashSet<String>> {
    if let Some(parquet) = &of.local {
        let dir = parquet.parent()?.to_owned();
        let found = blocking(move || match std::fs::read_dir(&dir) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect(),
            // The directory of a partition went with its files.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(HashSet::new()),
            Err(error) => Err(error),
        });
        return found.await.ok();
    }
    let dir = of.parquet.parent()?;
    if of.store_url.starts_with("http://") || of.store_url.starts_with("https://") {
        return None;
    }
    let found = ask(options.timeout, || async {
        let prefix = Some(&dir).filter(|dir| !dir.as_ref().is_empty());
        let listed = of.store.list_with_delimiter(prefix).await?.objects;
        let named = listed.into_iter().filter_map(|object| {
            let name = object.location.filename()?.to_owned();
            Some((name, object))
        });
        Ok(named.collect())
    });
    Some(found.await.ok()?.into_keys().collect())
}
