//! The `hnsw.*` settings of a session.

pub(crate) mod values;

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use datafusion::common::config_namespace;
use datafusion::config::{ConfigEntry, ConfigExtension, ConfigField, ConfigOptions, ExtensionOptions, Visit};
use datafusion::error::{DataFusionError, Result};

use crate::hnsw::{DEFAULT_EF_CONSTRUCTION, DEFAULT_EF_SEARCH, DEFAULT_M, DEFAULT_SEED, StoredVectors};

/// How queries are answered: `hnsw.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Through the index where there is one that fits.
    #[default]
    Auto,
    /// By our own scan, without a graph: every vector is compared.
    Exact,
    /// By DataFusion's own plan; queries are not touched.
    Off,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Auto => "auto",
            Mode::Exact => "exact",
            Mode::Off => "off",
        })
    }
}

impl FromStr for Mode {
    type Err = DataFusionError;

    fn from_str(s: &str) -> Result<Self> {
        match s.to_ascii_lowercase().as_str() {
            "auto" => Ok(Mode::Auto),
            "exact" => Ok(Mode::Exact),
            "off" => Ok(Mode::Off),
            other => Err(DataFusionError::Configuration(format!(
                "hnsw.mode cannot be '{other}'; use 'auto', 'exact' or 'off'"
            ))),
        }
    }
}

impl ConfigField for Mode {
    fn visit<V: Visit>(&self, v: &mut V, key: &str, description: &'static str) {
        v.some(key, self, description);
    }

    fn set(&mut self, _key: &str, value: &str) -> Result<()> {
        *self = value.parse()?;
        Ok(())
    }
}

/// How sidecars are opened: `hnsw.load`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadMode {
    /// Mapped: pages are read as searches touch them. A file that is made shorter in place while a search reads it ends
    /// the process.
    #[default]
    Mmap,
    /// Read to memory, which is taken from the memory pool.
    Memory,
}

impl fmt::Display for LoadMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoadMode::Mmap => "mmap",
            LoadMode::Memory => "memory",
        })
    }
}

impl FromStr for LoadMode {
    type Err = DataFusionError;

    fn from_str(s: &str) -> Result<Self> {
        match s.to_ascii_lowercase().as_str() {
            "mmap" => Ok(LoadMode::Mmap),
            "memory" => Ok(LoadMode::Memory),
            other => Err(DataFusionError::Configuration(format!(
                "hnsw.load cannot be '{other}'; use 'mmap' or 'memory'"
            ))),
        }
    }
}

impl ConfigField for LoadMode {
    fn visit<V: Visit>(&self, v: &mut V, key: &str, description: &'static str) {
        v.some(key, self, description);
    }

    fn set(&mut self, _key: &str, value: &str) -> Result<()> {
        *self = value.parse()?;
        Ok(())
    }
}

/// What a new index keeps of each vector, as a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored(pub StoredVectors);

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ConfigField for Stored {
    fn visit<V: Visit>(&self, v: &mut V, key: &str, description: &'static str) {
        v.some(key, self, description);
    }

    fn set(&mut self, _key: &str, value: &str) -> Result<()> {
        self.0 = value.parse().map_err(|_| {
            DataFusionError::Configuration(format!(
                "hnsw.stored cannot be '{value}'; use 'f32', 'f16' or 'none'"
            ))
        })?;
        Ok(())
    }
}

config_namespace! {
    /// Settings under the prefix `hnsw`, for example `SET hnsw.ef_search = 200`.
    pub struct HnswOptions {
        /// How queries are answered: auto (through an index), exact (our scan, no graph) or off (DataFusion's own plan)
        pub mode: Mode, default = Mode::Auto
        /// Candidates that a search keeps, at least (1 or more); more find more of the true neighbors and take longer
        pub ef_search: usize, default = DEFAULT_EF_SEARCH
        /// Metric of an index when CREATE INDEX does not say: cosine, l2 or ip
        pub metric: String, default = "cosine".to_string()
        /// Neighbors of a node in a new index, 2 to 128 (twice as many on layer 0)
        pub m: usize, default = DEFAULT_M
        /// Candidates kept while a node of a new index is inserted, 1 to 10000
        pub ef_construction: usize, default = DEFAULT_EF_CONSTRUCTION
        /// Seed of a new index; the same input, parameters and seed give the same bytes
        pub seed: u64, default = DEFAULT_SEED
        /// What a new index keeps of each vector: f32 (as it is), f16 (half of the bytes) or none (rows are read from the Parquet file to decide)
        pub stored: Stored, default = Stored(StoredVectors::F32)
        /// Threads that build an index, up to 1024; 0 means all cores
        pub threads: usize, default = 0
        /// How sidecars are opened: mmap (pages are read as searches touch them) or memory (read whole, from the memory pool; safe from files that are cut short in place)
        pub load: LoadMode, default = LoadMode::Mmap
        /// A query waits until all bytes of a sidecar of up to this size were checked, once in a process; larger ones are checked soon after
        pub verify_wait: usize, default = 64 * 1024 * 1024
        /// Directory (~ is the home directory) or object-store URL for sidecars; empty means next to the directory of the table
        pub sidecar_dir: String, default = String::new()
        /// Directory for copies of remote sidecars; empty means datafusion-hnsw in the user's cache directory
        pub cache_dir: String, default = String::new()
        /// Bytes that cache_dir may hold, with or without a unit, such as 10 GiB
        pub cache_size: usize, default = 10 * 1024 * 1024 * 1024
        /// Bytes that cached filter bitmaps may hold
        pub filter_cache_size: usize, default = 64 * 1024 * 1024
        /// Bytes that small columns may hold which are kept, of files without a page index or with long pages; 0 keeps none
        pub column_cache_size: usize, default = 64 * 1024 * 1024
    }
}

impl ConfigExtension for HnswOptions {
    const PREFIX: &'static str = "hnsw";
}

impl ExtensionOptions for HnswOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if default_of(key).is_none() {
            return Err(unknown(key));
        }
        ConfigField::set(self, key, &values::accepted(key, value)?)
    }

    /// The settings with their prefix, as SHOW and `information_schema.df_settings` look for them.
    fn entries(&self) -> Vec<ConfigEntry> {
        let mut entries = Entries(vec![]);
        self.visit(&mut entries, Self::PREFIX, "");
        entries.0
    }
}

struct Entries(Vec<ConfigEntry>);

impl Visit for Entries {
    fn some<V: fmt::Display>(&mut self, key: &str, value: V, description: &'static str) {
        self.0.push(ConfigEntry {
            key: key.to_owned(),
            value: Some(value.to_string()),
            description,
        });
    }

    fn none(&mut self, key: &str, description: &'static str) {
        self.0.push(ConfigEntry {
            key: key.to_owned(),
            value: None,
            description,
        });
    }
}

/// The names of the settings and what they are when nobody sets them.
fn defaults() -> impl Iterator<Item = (String, String)> {
    let prefix = format!("{}.", HnswOptions::PREFIX);
    HnswOptions::default()
        .entries()
        .into_iter()
        .filter_map(move |entry| {
            let name = entry.key.strip_prefix(&prefix)?.to_owned();
            Some((name, entry.value.unwrap_or_default()))
        })
}

/// What the setting `hnsw.<name>` is when nobody sets it; `None` if there is no such setting.
pub(crate) fn default_of(name: &str) -> Option<String> {
    defaults()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value)
}

/// The error for a setting that there is not.
pub(crate) fn unknown(name: &str) -> DataFusionError {
    let names: Vec<String> = defaults().map(|(known, _)| known).collect();
    DataFusionError::Configuration(format!(
        "there is no setting hnsw.{name}; the settings are {}",
        names.join(", ")
    ))
}

impl HnswOptions {
    /// The settings of a session; the defaults when the extension was not registered.
    pub fn of(config: &ConfigOptions) -> Self {
        config
            .extensions
            .get::<HnswOptions>()
            .cloned()
            .unwrap_or_default()
    }

    /// `hnsw.cache_dir`, if it is set.
    pub(crate) fn cache_dir(&self) -> Option<&Path> {
        (!self.cache_dir.is_empty()).then(|| Path::new(&self.cache_dir))
    }
}
