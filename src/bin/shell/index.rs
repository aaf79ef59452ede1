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

    /// Write the sidecars here instead of beside the files
    #[arg(long)]
    sidecar_dir: Option<PathBuf>,

    /// Keep sidecars that are fresh
    #[arg(long)]
    if_not_exists: bool,
}

/// Runs an `index` command.
pub(crate) async fn run(session: &Session, command: IndexCommand) -> anyhow::Result<()> {
    let IndexCommand::Build(build) = command;
    let table = "indexed_files";
    if let Some(directory) = &build.sidecar_dir {
        let directory = directory.to_str().context("--sidecar-dir is not valid UTF-8")?;
        session
            .run(&format!("SET hnsw.sidecar_dir = {}", quoted(directory)))
            .await?;
    }
    session
        .ctx
        .sql(&format!(
            "CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION {}",
            quoted(&build.location)
        ))
        .await?;
    session.run(&build.statement(table)).await?;
    Ok(())
}

impl Build {
    fn statement(&self, table: &str) -> String {
        let options: Vec<String> = [
            self.metric
                .as_ref()
                .map(|metric| format!("metric = {}", quoted(metric))),
            self.m.map(|m| format!("m = {m}")),
            self.ef_construction.map(|ef| format!("ef_construction = {ef}")),
            self.seed.map(|seed| format!("seed = {seed}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        let with = if options.is_empty() {
            String::new()
        } else {
            format!(" WITH ({})", options.join(", "))
        };
        let exists = if self.if_not_exists { "IF NOT EXISTS " } else { "" };
        let column = self.column.replace('"', "\"\"");
        format!("CREATE INDEX {exists}ON {table} USING hnsw (\"{column}\"){with}")
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
