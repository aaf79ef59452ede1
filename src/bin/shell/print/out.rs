//! Standard output, which whoever reads it may close: `datafusion-hnsw -f x.sql | head -1`.

use std::io::{self, BufWriter, Stdout, Write};

/// What a shell reports of a process that wrote to a closed pipe.
const CLOSED: i32 = 141;

/// Standard output; when nobody reads it any more the process ends without a word.
pub(crate) struct Out(Stdout);

impl Out {
    /// For many small writes; it must be flushed in the end.
    pub(crate) fn buffered() -> BufWriter<Self> {
        BufWriter::with_capacity(1 << 16, Self::plain())
    }

    pub(crate) fn plain() -> Self {
        Self(io::stdout())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).inspect_err(end_if_closed)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().inspect_err(end_if_closed)
    }
}

/// Prints a line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    writeln!(Out::plain(), "{text}")
}

fn end_if_closed(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(CLOSED);
    }
}

/// Ends the process if this error is that of a closed pipe, as when `datafusion-cli` printed.
pub(crate) fn end_if_closed_below(error: &anyhow::Error) {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            end_if_closed(error);
        }
    }
}

/// `datafusion-cli` prints the answers of some `\` commands by `println!`, which panics at a closed pipe.
pub(crate) fn end_quietly_at_println() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            std::process::exit(CLOSED);
        }
        before(panic);
    }));
}
