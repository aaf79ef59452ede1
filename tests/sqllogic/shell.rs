//! The shell as a database: one process for a file, which reads the statements from a pipe as a user's script would.

use std::fmt;
use std::io::{Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput};

use crate::database::EF_SEARCH;
use crate::output::{Column, Output};

/// The program, if the tests are built with the feature `shell`.
pub(crate) const PROGRAM: Option<&str> = option_env!("CARGO_BIN_EXE_datafusion-hnsw");

/// A statement takes less.
const LONGEST: Duration = Duration::from_secs(300);

/// What the shell said on standard error.
#[derive(Debug)]
pub(crate) struct ShellError(String);

impl fmt::Display for ShellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShellError {}

/// A shell that is running.
pub(crate) struct Shell {
    process: Child,
    statements: Option<ChildStdin>,
    out: Receiver<Vec<u8>>,
    err: Receiver<Vec<u8>>,
    output: Output,
    sent: usize,
}

impl Shell {
    /// Starts a shell whose tables live in `dir`; `None` leaves every setting at its default.
    pub(crate) fn start(mode: Option<&str>, dir: String) -> Result<Self, ShellError> {
        let mut process = Command::new(PROGRAM.expect("the shell is built"))
            .args(["-q", "--format", "csv"])
            .current_dir(&dir)
            .env("HOME", &dir)
            // What the session of the other tests has.
            .env("DATAFUSION_EXECUTION_TARGET_PARTITIONS", "4")
            .env("DATAFUSION_EXPLAIN_FORMAT", "indent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| ShellError(error.to_string()))?;
        let mut shell = Self {
            statements: process.stdin.take(),
            out: listen(process.stdout.take().expect("it is piped")),
            err: listen(process.stderr.take().expect("it is piped")),
            process,
            output: Output::new(dir),
            sent: 0,
        };
        if let Some(mode) = mode {
            shell.send(&format!("SET hnsw.mode = '{mode}'"))?;
            shell.send(&format!("SET hnsw.ef_search = {EF_SEARCH}"))?;
        }
        Ok(shell)
    }

    /// Runs a statement and gives what it printed. Behind it a query and a command that there is not end both outputs.
    fn send(&mut self, sql: &str) -> Result<String, ShellError> {
        self.sent += 1;
        let mark = format!("end_of_statement_{}", self.sent);
        // A statement may end in a comment.
        let text = format!("{sql}\n;\nSELECT 1 AS {mark};\n\\{mark}\n");
        let pipe = self.statements.as_mut().expect("it is open until the end");
        pipe.write_all(text.as_bytes())
            .map_err(|error| ShellError(error.to_string()))?;
        let out = until(&self.out, &format!("{mark}\n1\n"))?;
        let err = until(
            &self.err,
            &format!("'\\{mark}' is not a command; '\\?' lists them\n"),
        )?;
        if err.is_empty() {
            Ok(out)
        } else {
            Err(ShellError(err.trim_end().to_owned()))
        }
    }

    /// The types of a query's columns; `None` for statements that are not described.
    fn types(&mut self, sql: &str) -> Option<Vec<Column>> {
        let described = self.send(&format!("DESCRIBE {sql}")).ok()?;
        let (header, rows) = csv(&described);
        let at = header.iter().position(|name| name == "data_type")?;
        Some(rows.iter().map(|row| Column::of_name(&row[at])).collect())
    }
}

/// Reads a pipe, so that it never fills.
fn listen(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// What comes before `mark`.
fn until(pipe: &Receiver<Vec<u8>>, mark: &str) -> Result<String, ShellError> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(mark.as_bytes()) {
        match pipe.recv_timeout(LONGEST) {
            Ok(more) => bytes.extend(more),
            Err(end) => {
                let end = match end {
                    RecvTimeoutError::Timeout => "hangs",
                    RecvTimeoutError::Disconnected => "ended",
                };
                let so_far = String::from_utf8_lossy(&bytes);
                return Err(ShellError(format!("the shell {end}; it said: {so_far}")));
            }
        }
    }
    bytes.truncate(bytes.len() - mark.len());
    String::from_utf8(bytes).map_err(|error| ShellError(error.to_string()))
}

/// The header and the rows of a CSV text.
fn csv(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut characters) = (false, text.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                cell.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    let header = if rows.is_empty() { vec![] } else { rows.remove(0) };
    (header, rows)
}

#[async_trait]
impl AsyncDB for Shell {
    type Error = ShellError;
    type ColumnType = Column;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Column>, ShellError> {
        let printed = self.send(sql)?;
        if printed.is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let (header, rows) = csv(&printed);
        let types = self.types(sql).filter(|types| types.len() == header.len());
        let types = types.unwrap_or_else(|| vec![Column::Unknown; header.len()]);
        Ok(self.output.printed(&header, types, rows))
    }

    async fn shutdown(&mut self) {
        // The end of its input is the end of the shell.
        self.statements = None;
        let _ = self.process.wait();
    }

    fn engine_name(&self) -> &str {
        "datafusion-hnsw"
    }

    async fn sleep(time: Duration) {
        tokio::time::sleep(time).await;
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.statements = None;
        let _ = self.process.wait();
    }
}
