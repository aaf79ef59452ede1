//! The shell: DataFusion's own command line with vector indexes registered.
//!
//! Its options and `\` commands are `datafusion-cli`'s, taken from its library. What is ours: statements that
//! DataFusion's parser accepts but its planner drops (`CREATE INDEX ... WITH`, `DROP INDEX`) are rewritten first, a
//! script stops at its first error, building an index shows how far it is, programs get all rows and people short
//! vectors, and the prompt completes names.

#![allow(
    clippy::future_not_send,
    reason = "datafusion-cli's session context is not Sync; the shell awaits on one thread"
)]

mod args;
mod errors;
mod execute;
mod index;
mod pace;
mod print;
mod progress;
mod prompt;
mod repl;
mod script;
mod session;

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;

use crate::args::{Action, Args};
use crate::print::out;
use crate::session::Session;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    out::end_quietly_at_println();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(args)));
    match done {
        Ok(code) => code,
        Err(error) => {
            out::end_if_closed_below(&error);
            eprintln!("Error: {}", errors::told(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.data_path {
        std::env::set_current_dir(directory)?;
    }
    let action = args.action.take();
    let mut session = Session::new(&args).await?;
    if let Some(Action::Index(command)) = action {
        index::run(&session, command).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.reads_interactively() {
        if !args.quiet {
            out::line(&args::banner())?;
        }
        for file in args.startup_files() {
            script::run_file(&session, &file).await?;
        }
        return repl::run(&mut session).await;
    }
    for file in &args.file {
        script::run_file(&session, file).await?;
    }
    for command in &args.command {
        script::run_text(&session, "-c", command).await?;
    }
    Ok(ExitCode::SUCCESS)
}
