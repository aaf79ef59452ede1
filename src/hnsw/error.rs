//! Why a search has no answer, and how its caller ends it.

use std::sync::atomic::{AtomicBool, Ordering};

/// Something in the bytes of an index contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {section} section of the index is damaged; rebuild the index")]
pub struct Damaged {
    /// The section that holds the contradiction.
    pub section: &'static str,
}

/// Why a search has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The query has another length than the index.
    #[error("the query has {found} numbers but the index holds vectors of {expected}")]
    Dimension {
        /// The index's dimension.
        expected: usize,
        /// The query's length.
        found: usize,
    },
    /// NaN, infinite, or so long that squares overflow an f32.
    #[error("the query holds a number that is not finite or too large for 32-bit arithmetic")]
    OutOfRange,
    /// The cosine distance from a zero vector (or one too short for 32-bit arithmetic) is undefined.
    #[error("the query is a zero vector, whose cosine distance is undefined")]
    ZeroQuery,
    /// The caller asked to stop, through [`SearchOptions::stop`](crate::hnsw::SearchOptions::stop).
    #[error("the search was interrupted")]
    Interrupted,
    /// The bytes of the index contradict themselves.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// The caller's wish to end a search, if there is a way to say it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop<'a>(pub(crate) Option<&'a AtomicBool>);

impl Stop<'_> {
    /// An error if the search is to end.
    #[inline(always)]
    pub(crate) fn check(self) -> Result<(), SearchError> {
        match self.0 {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(SearchError::Interrupted),
            _ => Ok(()),
        }
    }
}
