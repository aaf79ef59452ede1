//! How far the building of an index is, on a terminal; and how Ctrl-C ends it.

use std::fmt;
use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use datafusion_hnsw::{IndexPhase, IndexProgress, on_index_progress};
use indicatif::{HumanDuration, HumanFloatCount, ProgressBar, ProgressState, ProgressStyle};

use crate::pace::Pace;

const STYLE: &str = "{msg} [{bar:30}] {human_pos}/{human_len} rows{pace}";

/// Shows a bar on standard error while an index is built in this session.
#[derive(Debug)]
pub(crate) struct Progress {
    visible: bool,
    cancelled: AtomicBool,
    shown: Mutex<Option<Shown>>,
}

/// The bar of one phase of one file, or of all files, some of which are built side by side.
#[derive(Debug)]
struct Shown {
    /// 0 for all.
    file: usize,
    phase: IndexPhase,
    bar: ProgressBar,
}

impl Progress {
    /// Listens to the builds of a session. Nothing is shown when `quiet`, or when nobody is there to see.
    pub(crate) fn attach(ctx: &SessionContext, quiet: bool) -> Result<Arc<Self>> {
        let progress = Arc::new(Self {
            visible: !quiet && std::io::stderr().is_terminal(),
            cancelled: AtomicBool::new(false),
            shown: Mutex::new(None),
        });
        let listener = Arc::clone(&progress);
        on_index_progress(ctx, Some(Arc::new(move |at: &IndexProgress| listener.told(at))))?;
        Ok(progress)
    }

    /// A statement begins.
    pub(crate) fn begin(&self) {
        self.cancelled.store(false, Ordering::Relaxed);
    }

    /// A statement ended, well or not: no bar stays behind.
    pub(crate) fn end(&self) {
        if let Some(shown) = self.shown().take() {
            shown.bar.finish_and_clear();
        }
    }

    /// Ends the build at its next step; without this its threads would run on.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.end();
    }

    fn told(&self, at: &IndexProgress) -> ControlFlow<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        if self.visible {
            let mut shown = self.shown();
            match shown.as_ref() {
                Some(now) if at.files > 1 && now.file == 0 => {
                    now.bar.set_message(message(at));
                    now.bar.set_position(at.files_done as u64);
                }
                Some(now) if now.file == at.file && now.phase == at.phase => now.bar.set_position(at.done),
                _ => {
                    if let Some(before) = shown.take() {
                        before.bar.finish_and_clear();
                    }
                    *shown = Some(Shown {
                        file: if at.files > 1 { 0 } else { at.file },
                        phase: at.phase,
                        bar: bar(at),
                    });
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn shown(&self) -> MutexGuard<'_, Option<Shown>> {
        // A panic elsewhere leaves at worst a bar that is drawn once more.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn message(at: &IndexProgress) -> String {
    let doing = match at.phase {
        IndexPhase::Read => "reading",
        IndexPhase::Encode => "sorting",
        IndexPhase::Link => "linking",
        IndexPhase::Publish => "writing",
        _ => "indexing",
    };
    format!("{doing} {}", at.path.rsplit('/').next().unwrap_or(&at.path))
}

fn bar(at: &IndexProgress) -> ProgressBar {
    let several = at.files > 1;
    let unit = if several { "files" } else { "rows" };
    let pace = Arc::new(Mutex::new(Pace::default()));
    let style = ProgressStyle::with_template(&STYLE.replace("rows", unit))
        .expect("the template is well-formed")
        .progress_chars("=> ")
        .with_key("pace", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
            let forecast = pace.at(state.pos(), state.len().unwrap_or(0), state.elapsed());
            if let Some(forecast) = forecast {
                let (rate, left) = (
                    HumanFloatCount(forecast.per_second.round()),
                    HumanDuration(forecast.left),
                );
                // The bar is redrawn at once; there is nobody to tell of a failure.
                let _ = write!(out, ", {rate}/s, {left} left");
            }
        });
    let (done, total) = if several {
        (at.files_done as u64, at.files as u64)
    } else {
        (at.done, at.total)
    };
    ProgressBar::new(total)
        .with_style(style)
        .with_message(message(at))
        .with_position(done)
}
