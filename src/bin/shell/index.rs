//! `datafusion-hnsw index build FILE`: the CREATE INDEX statement as a command.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Build the index of a column of a Parquet file, or of every Parquet file in a directory
    Build(Build),
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// A Parquet file, or a directory of them; an object store URL works too
    location: String,

    /// The column of vectors
    #[arg(long, default_value = "embedding")]
    column: String,

    /// The distance: cosine, l2 or ip
    #[arg(long)]
    metric: Option<String>,

    /// Links of a node
    #[arg(long)]
    m: Option<u32>,

    /// Candidates considered when a node is linked
    #[arg(long)]
    ef_construction: Option<u32>,

    /// Seed of the levels
    #[arg(long)]
    seed: Option<u64>,

    /// What is kept of each vector: f32, f16 or none
    #[arg(long)]
    stored: Option<String>,

    /// Write the sidecars here instead of into `_hnsw` beside the files
    #[arg(long)]
    sidecar_dir: Option<PathBuf>,

    /// Keep sidecars that are fresh
    #[arg(long)]
    if_not_exists: bool,
}

/// Runs an `index` command.
pub(crate) async fn run(session: &Session, command: IndexCommand) -> anyhow::Result<()> {
    let IndexCommand::Build(build) = command;
    if let Some(directory) = &build.sidecar_dir {
        let directory = directory.to_str().context("--sidecar-dir is not valid UTF-8")?;
        let set = format!("SET hnsw.sidecar_dir = {}", quoted(directory));
        session.ctx.sql(&set).await?;
    }
    let table = table_name(&build.location);
    let location = quoted(&build.location);
    let create = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION {location}");
    session.ctx.sql(&create).await?;
    session.run(&build.statement(&table)).await?;
    Ok(())
}

impl Build {
    /// The table function instead of CREATE INDEX: its name for the index may be left out always.
    fn statement(&self, table: &str) -> String {
        let options: Vec<String> = [
            self.metric.as_ref().map(|metric| format!("metric={metric}")),
            self.m.map(|m| format!("m={m}")),
            self.ef_construction.map(|ef| format!("ef_construction={ef}")),
            self.seed.map(|seed| format!("seed={seed}")),
            self.stored.as_ref().map(|stored| format!("stored={stored}")),
            self.if_not_exists.then(|| "if_not_exists=true".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let (column, options) = (quoted(&self.column), quoted(&options.join(", ")));
        format!("SELECT * FROM hnsw_create_index('{table}', {column}, {options})")
    }
}

/// A name for the table of these files, from which the index gets its own: the last part of the location.
fn table_name(location: &str) -> String {
    let last = location
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let stem = last.strip_suffix(".parquet").unwrap_or(last).to_ascii_lowercase();
    let name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("t_{name}")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
