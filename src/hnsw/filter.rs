//! Search among the allowed rows only.

use super::graph::Parts;
use super::query::{Decide, Notes, Query, SearchError, SearchOptions, SearchOutcome};
use super::rowset::RowSet;

/// Finds the nearest allowed rows.
pub(crate) fn search(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    allowed: &RowSet,
    notes: &mut Notes,
) -> Result<SearchOutcome, SearchError> {
    exact(parts, query, options, allowed, notes)
}

/// Looks at every allowed row.
fn exact(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    allowed: &RowSet,
    notes: &Notes,
) -> Result<SearchOutcome, SearchError> {
    let mut decide = Decide::new(parts, query, options);
    for row in allowed.iter() {
        if let Some(slot) = parts.slot_of(row.get()).filter(|&slot| slot < parts.node_count()) {
            decide.row(row, slot);
        }
    }
    Ok(decide.finish(&notes.scratch, true))
}
