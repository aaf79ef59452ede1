//! What can be said on the command line: `datafusion-cli`'s options, and `index build`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use datafusion_cli::DATAFUSION_CLI_VERSION;
use datafusion_cli::object_storage::instrumented::InstrumentedObjectStoreMode;
use datafusion_cli::object_storage::is_stdin_location;
use datafusion_cli::pool_type::PoolType;
use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::MaxRows;

use crate::index::IndexCommand;

/// SQL over files with vector indexes: DataFusion's command line with datafusion-hnsw registered.
///
/// Without -c or -f, statements are read from the terminal or from standard input.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Run these statements, then exit
    #[arg(short = 'c', long, num_args = 1.., value_parser = parse_command)]
    pub(crate) command: Vec<String>,

    /// Run the statements in these files, then exit; the first error ends the run
    #[arg(short = 'f', long, num_args = 1..)]
    pub(crate) file: Vec<PathBuf>,

    /// Run these files on start-up instead of ~/.datafusionrc
    #[arg(short = 'r', long, num_args = 0.., conflicts_with = "file")]
    pub(crate) rc: Option<Vec<PathBuf>>,

    /// How rows are printed
    #[arg(long, value_enum, default_value_t = PrintFormat::Automatic)]
    pub(crate) format: PrintFormat,

    /// Print rows only: no banner, row counts or times
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,

    /// The most rows shown in 'table' format: a number, or inf
    #[arg(long, default_value = "40")]
    pub(crate) maxrows: MaxRows,

    /// Highlight SQL while it is typed
    #[arg(long)]
    pub(crate) color: bool,

    /// Change to this directory first
    #[arg(short = 'p', long)]
    pub(crate) data_path: Option<PathBuf>,

    /// Rows in a batch
    #[arg(short = 'b', long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: Option<u32>,

    /// Memory for queries, such as 512m or 10g; without it there is no limit
    #[arg(short = 'm', long, value_parser = parse_size)]
    pub(crate) memory_limit: Option<usize>,

    /// How that memory is shared: greedy or fair
    #[arg(long, default_value_t = PoolType::Greedy)]
    pub(crate) mem_pool_type: PoolType,

    /// How many of the largest users of memory an out-of-memory error names
    #[arg(long, default_value_t = 3)]
    pub(crate) top_memory_consumers: usize,

    /// Disk space for spilling, such as 10g
    #[arg(short = 'd', long, value_parser = parse_size)]
    pub(crate) disk_limit: Option<usize>,

    /// Show what was asked of object stores: disabled, summary or trace
    #[arg(long, default_value_t = InstrumentedObjectStoreMode::Disabled)]
    pub(crate) object_store_profiling: InstrumentedObjectStoreMode,

    #[command(subcommand)]
    pub(crate) action: Option<Action>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Build an index without writing SQL
    #[command(subcommand)]
    Index(IndexCommand),
}

impl Args {
    /// Neither -c nor -f was given.
    pub(crate) fn reads_interactively(&self) -> bool {
        self.command.is_empty() && self.file.is_empty()
    }

    /// Standard input carries statements, so it cannot also be a table.
    pub(crate) fn stdin_carries_statements(&self) -> bool {
        self.reads_interactively()
            || self
                .file
                .iter()
                .any(|f| f.to_str().is_some_and(is_stdin_location))
    }

    /// The files to run before the first prompt.
    pub(crate) fn startup_files(&self) -> Vec<PathBuf> {
        match &self.rc {
            Some(files) => files.clone(),
            None => std::env::home_dir()
                .map(|home| home.join(".datafusionrc"))
                .filter(|file| file.is_file())
                .into_iter()
                .collect(),
        }
    }
}

/// The first line of an interactive session.
pub(crate) fn banner() -> String {
    format!(
        "datafusion-hnsw {} (DataFusion {DATAFUSION_CLI_VERSION})",
        env!("CARGO_PKG_VERSION")
    )
}

fn parse_command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("expected a statement".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Reads `4096`, `512m`, `10g` (powers of 1024; a `b` after the letter is allowed).
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.strip_suffix('b').unwrap_or(unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => {
            return Err(format!(
                "'{text}' is not a size; write a number with k, m, g or t, such as 512m"
            ));
        }
    };
    number
        .parse::<usize>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("'{text}' is not a size; write a number with k, m, g or t, such as 512m"))
}
