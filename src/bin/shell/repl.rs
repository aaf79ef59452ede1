//! The prompt: statements over several lines, a history, and `datafusion-cli`'s `\` commands.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use datafusion_cli::command::{Command, OutputFormat};
use datafusion_cli::helper::CliHelper;
use rustyline::Editor;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use tokio::signal;

use crate::script::{self, session_dialect};
use crate::session::Session;

/// Reads and runs statements until `\q` or the end of the input.
///
/// An error at a terminal is shown and forgotten. When the input is a pipe, the statements after it
/// still run, as in `datafusion-cli`, but the exit code tells.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<ExitCode> {
    let mut editor = Editor::<CliHelper, DefaultHistory>::new()?;
    editor.set_helper(Some(CliHelper::new(&dialect(session), session.print.color)));
    let history = history_file();
    if let Some(file) = &history {
        // There is none before the first session.
        let _ = editor.load_history(file);
    }

    let mut failed = false;
    loop {
        match editor.readline("> ") {
            Ok(line) if line.starts_with('\\') => {
                editor.add_history_entry(line.trim_end())?;
                match command(session, line[1..].trim()).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        eprintln!("{error:#}");
                        failed = true;
                    }
                }
            }
            Ok(line) => {
                editor.add_history_entry(line.trim_end())?;
                tokio::select! {
                    done = statements(session, &line) => if let Err(error) = done {
                        eprintln!("{error:#}");
                        failed = true;
                    },
                    _ = signal::ctrl_c() => {
                        session.progress.cancel();
                        println!("^C");
                    }
                }
                if let Some(helper) = editor.helper_mut() {
                    helper.set_dialect(&dialect(session));
                }
            }
            Err(ReadlineError::Interrupted) => {
                println!("^C");
                if let Some(helper) = editor.helper() {
                    helper.reset_hint();
                }
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }

    if let Some(file) = &history
        && let Err(error) = editor.save_history(file)
    {
        eprintln!("the history was not saved to {}: {error}", file.display());
    }
    let piped = !std::io::stdin().is_terminal();
    Ok(if failed && piped {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn statements(session: &Session, text: &str) -> anyhow::Result<()> {
    for statement in script::split(text, session_dialect(session)?.as_ref())? {
        session.run(statement.sql).await?;
    }
    Ok(())
}

/// Runs a `\` command; `false` means quit.
async fn command(session: &mut Session, text: &str) -> anyhow::Result<bool> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let unknown = || anyhow::anyhow!("'\\{text}' is not a command; '\\?' lists them");
    match text.parse::<Command>().map_err(|()| unknown())? {
        Command::Quit => return Ok(false),
        // datafusion-cli's own would not know CREATE INDEX ... WITH.
        Command::Include(Some(file)) => script::run_file(session, Path::new(&file)).await?,
        Command::OutputFormat(None) => println!("Output format is {:?}.", session.print.format),
        Command::OutputFormat(Some(setting)) => {
            setting
                .parse::<OutputFormat>()
                .map_err(|()| unknown())?
                .execute(&mut session.print)?;
        }
        other => other.execute(&session.ctx, &mut session.print).await?,
    }
    Ok(true)
}

fn dialect(session: &Session) -> datafusion::config::Dialect {
    session.ctx.state().config().options().sql_parser.dialect
}

/// Kept in the home directory, so that it is the same wherever the shell is started.
fn history_file() -> Option<PathBuf> {
    Some(std::env::home_dir()?.join(".datafusion_hnsw_history"))
}
