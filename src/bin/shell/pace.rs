//! How fast something goes, and how long it will go on.

use std::collections::VecDeque;
use std::time::Duration;

/// Nothing is foretold before this time, and before this share is done.
const SOONEST: Duration = Duration::from_secs(1);
const LEAST_SHARE: u64 = 200;

/// So many earlier positions are remembered.
const MARKS: u32 = 64;

/// Positions at earlier times.
///
/// A node is linked ever more slowly while the graph grows, and the first few are linked one after another. So the
/// rate is that of the later half of the time.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    marks: VecDeque<(Duration, u64)>,
}

/// A rate and what it means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forecast {
    pub(crate) per_second: f64,
    pub(crate) left: Duration,
}

impl Pace {
    /// Takes note of where it is, and says how it will go on if that can be said.
    pub(crate) fn at(&mut self, done: u64, total: u64, elapsed: Duration) -> Option<Forecast> {
        let last = self.marks.back().map_or(Duration::ZERO, |&(at, _)| at);
        if self.marks.is_empty() || elapsed >= last + elapsed / MARKS {
            self.marks.push_back((elapsed, done));
        }
        let half = elapsed / 2;
        while self.marks.get(1).is_some_and(|&(at, _)| at <= half) {
            self.marks.pop_front();
        }
        if elapsed < SOONEST || done.saturating_mul(LEAST_SHARE) < total {
            return None;
        }
        let &(since, before) = self.marks.front()?;
        let seconds = elapsed.saturating_sub(since).as_secs_f64();
        let progress = done.saturating_sub(before);
        if seconds <= 0.0 || progress == 0 {
            return None;
        }
        let per_second = progress as f64 / seconds;
        let left = total.saturating_sub(done) as f64 / per_second;
        Some(Forecast {
            per_second,
            left: Duration::from_secs_f64(left.ceil().min(1e9)),
        })
    }
}
