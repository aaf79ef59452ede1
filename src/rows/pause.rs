//! Work that never waits: how it lets others run, and how it ends soon when its query is dropped.

use std::time::{Duration, Instant};

/// Work goes on for so long before it looks up. A query that is dropped ends within a few of these.
const LONGEST: Duration = Duration::from_millis(5);

/// Pauses for a moment now and then.
///
/// A future can be dropped only where it waits. Reading a local file never does, so a loop over its batches would
/// run to its end long after its query was cancelled, and nothing else would run on its thread.
#[derive(Debug)]
pub(crate) struct Pause {
    since: Instant,
}

impl Pause {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
        }
    }

    /// Pauses, if it is time.
    pub(crate) async fn if_due(&mut self) {
        if self.since.elapsed() >= LONGEST {
            tokio::task::yield_now().await;
            self.since = Instant::now();
        }
    }
}
