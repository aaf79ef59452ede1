//! How far a build is, for whoever waits for it or no longer does.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::config::BuildError;

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildProgress {
    /// What is being done.
    pub phase: BuildPhase,
    /// Nodes done in this phase.
    pub done: u64,
    /// Nodes in all.
    pub total: u64,
}

/// The parts of a build; nearly all of its time goes into [`Link`](Self::Link).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildPhase {
    /// Folding identical vectors and numbering the nodes.
    Arrange,
    /// Encoding the vectors, clustering and ordering the nodes.
    Encode,
    /// Inserting the nodes into the graph.
    Link,
    /// Checking that every node can be reached.
    Check,
}

/// How often a piece of work asks before whoever waits for it is asked.
const CALLS: u64 = 512;

/// Whether somebody still waits for a build: asked for each node, or so, by the work that comes before linking. It goes
/// over all nodes several times, so the calls also tell how far it is.
pub(crate) struct Watch<'a> {
    progress: &'a (dyn Fn(BuildProgress) -> ControlFlow<()> + Sync),
    total: u64,
    passes: u64,
    calls: AtomicU64,
    stopped: AtomicBool,
}

impl<'a> Watch<'a> {
    /// For work that goes over `total` nodes so many times.
    pub(crate) fn new(
        progress: &'a (dyn Fn(BuildProgress) -> ControlFlow<()> + Sync),
        total: u64,
        passes: u64,
    ) -> Self {
        Self {
            progress,
            total,
            passes,
            calls: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// False once nobody waits: what is still to be done may be left out.
    pub(crate) fn goes_on(&self) -> bool {
        if self.stopped.load(Ordering::Relaxed) {
            return false;
        }
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls.is_multiple_of(CALLS) {
            let at = BuildProgress {
                phase: BuildPhase::Encode,
                done: (calls / self.passes.max(1)).min(self.total),
                total: self.total,
            };
            if (self.progress)(at).is_break() {
                self.stopped.store(true, Ordering::Relaxed);
                return false;
            }
        }
        true
    }

    /// The error of a build that was stopped.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(BuildError::Cancelled);
        }
        Ok(())
    }
}
