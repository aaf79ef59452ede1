//! The prompt: statements over several lines, a history, and `datafusion-cli`'s `\` commands. Or a pipe with the same.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use datafusion_cli::command::{Command, OutputFormat};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::signal;

use crate::errors::told;
use crate::print::out;
use crate::prompt::names::Names;
use crate::prompt::{PromptHelper, is_complete};
use crate::script::{self, session_dialect};
use crate::session::Session;

/// Reads and runs statements until `\q` or the end of the input.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<ExitCode> {
    if std::io::stdin().is_terminal() {
        prompt(session).await?;
        Ok(ExitCode::SUCCESS)
    } else {
        piped(session).await
    }
}

/// What comes of one input.
enum Outcome {
    Done,
    Failed,
    Quit,
}

/// Reads at a terminal. An error is shown and forgotten.
async fn prompt(session: &mut Session) -> anyhow::Result<()> {
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor = Editor::<PromptHelper, DefaultHistory>::with_config(config)?;
    editor.set_helper(Some(PromptHelper::new(dialect(session), session.print.color)));
    let history = history_file();
    if let Some(file) = &history {
        // There is none before the first session.
        let _ = editor.load_history(file);
    }
    loop {
        if let Some(helper) = editor.helper_mut() {
            helper.set_dialect(dialect(session));
            helper.names = Names::of(&session.ctx).await;
        }
        match editor.readline("> ") {
            Ok(text) => {
                editor.add_history_entry(text.trim_end())?;
                if let Outcome::Quit = input(session, &text).await? {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {
                out::line("^C")?;
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
    Ok(())
}

/// Reads a pipe. The statements after an error still run, as in `datafusion-cli`, but the exit code tells.
async fn piped(session: &mut Session) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut text = String::new();
    loop {
        // One line at a time: what is behind it may be data of a table.
        let more = std::io::stdin().lock().read_line(&mut text)? > 0;
        // The last statement needs no semicolon.
        if more && !is_complete(&text, dialect(session)) && !text.trim().is_empty() {
            continue;
        }
        match input(session, &std::mem::take(&mut text)).await? {
            Outcome::Done => {}
            Outcome::Failed => code = ExitCode::FAILURE,
            Outcome::Quit => return Ok(code),
        }
        if !more {
            return Ok(code);
        }
    }
}

/// Runs a `\` command or statements, and shows an error.
async fn input(session: &mut Session, text: &str) -> anyhow::Result<Outcome> {
    let done = match text.strip_prefix('\\') {
        Some(text) => match command(session, text.trim()).await {
            Ok(false) => return Ok(Outcome::Quit),
            done => done.map(|_| ()),
        },
        None => tokio::select! {
            done = statements(session, text) => done,
            _ = signal::ctrl_c() => {
                session.progress.cancel();
                out::line("^C")?;
                Ok(())
            }
        },
    };
    Ok(match done {
        Ok(()) => Outcome::Done,
        Err(error) => {
            out::end_if_closed_below(&error);
            eprintln!("{}", told(&error));
            Outcome::Failed
        }
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
        Command::OutputFormat(None) => {
            out::line(&format!("Output format is {:?}.", session.print.format))?;
        }
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
