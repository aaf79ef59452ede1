//! What a sidecar says about itself and about the file it describes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What binds a sidecar to the bytes of its source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// The file's name, without its folder.
    pub file_name: String,
    /// The file's length in bytes.
    pub size: u64,
    /// The hash of the Parquet footer, in hexadecimal.
    pub footer_hash: String,
    /// Rows of the file.
    pub rows: u64,
    /// What tells this state of the file from others: the object store's tag, if it gave one, or for a local file what
    /// the file system says of it. Nobody looks into it; it is compared as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_tag: Option<String>,
}

/// The text in a sidecar's footer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarMeta {
    /// The index's name in SQL.
    pub index_name: String,
    /// The indexed column.
    pub table_column: String,
    /// The type of the column's items: `Float32`, `Float64` or `Float16`.
    pub item_type: String,
    /// The files that the rows come from, in the order of the row ids.
    pub sources: Vec<SourceIdentity>,
    /// The program that wrote the sidecar, and its version.
    pub created_by: String,
    /// Anything else that the writer wants to say.
    pub properties: BTreeMap<String, String>,
}

const INDEX_NAME: &str = "index-name";
const COLUMN: &str = "column";
const ITEM_TYPE: &str = "item-type";
const SOURCES: &str = "sources";
const CREATED_BY: &str = "created-by";
/// Before the names of [`SidecarMeta::properties`].
const OTHER: &str = "x-";

impl SidecarMeta {
    /// As properties of the footer.
    pub(super) fn to_properties(&self) -> BTreeMap<String, String> {
        let sources = serde_json::to_string(&self.sources).expect("strings and numbers always serialise");
        let named = [
            (INDEX_NAME, &self.index_name),
            (COLUMN, &self.table_column),
            (ITEM_TYPE, &self.item_type),
            (SOURCES, &sources),
            (CREATED_BY, &self.created_by),
        ];
        let other = self
            .properties
            .iter()
            .map(|(name, value)| (format!("{OTHER}{name}"), value.clone()));
        named
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .chain(other)
            .collect()
    }

    /// From properties of the footer; names that are not ours are passed over.
    pub(super) fn from_properties(properties: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| properties.get(name).cloned().unwrap_or_default();
        let sources = match properties.get(SOURCES) {
            Some(json) => serde_json::from_str(json).map_err(|error| format!("{SOURCES}: {error}"))?,
            None => Vec::new(),
        };
        Ok(Self {
            index_name: text(INDEX_NAME),
            table_column: text(COLUMN),
            item_type: text(ITEM_TYPE),
            sources,
            created_by: text(CREATED_BY),
            properties: properties
                .iter()
                .filter_map(|(name, value)| Some((name.strip_prefix(OTHER)?.to_owned(), value.clone())))
                .collect(),
        })
    }
}
