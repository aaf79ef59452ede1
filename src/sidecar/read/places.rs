//! The directories that an inventory lists.

use std::collections::{BTreeMap, HashMap};

use crate::sidecar::place::home::Home;
use crate::sidecar::place::location::Location;
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::remote::requests::Objects;

/// A directory to list.
pub(super) struct Place {
    pub(super) home: Home,
    /// One of the files whose sidecars are there, or a name that such a file could have.
    pub(super) of: Location,
    /// Those of the files that were asked about, by what their sidecars' names begin with.
    pub(super) names: HashMap<String, usize>,
    /// What is there, if it was listed with its neighbours.
    pub(super) listed: Option<Objects>,
}

/// The directories to list, by their addresses.
#[derive(Default)]
pub(super) struct Places(pub(super) BTreeMap<String, Place>);

impl Places {
    /// Adds the directories of a file's sidecars.
    pub(super) fn add(&mut self, file: &Location, index: Option<usize>) {
        for home in file.homes() {
            let key = match &home {
                Home::Local(dir) => dir.path().display().to_string(),
                Home::Remote(remote) => remote.address(&remote.dir),
            };
            let place = self.0.entry(key).or_insert_with(|| Place {
                home,
                of: file.clone(),
                names: HashMap::new(),
                listed: None,
            });
            if let Some(index) = index {
                let name = file.parquet.filename().unwrap_or_default();
                place.names.insert(SidecarName::short_parquet(name), index);
                place.names.insert(name.to_owned(), index);
            }
        }
    }
}
