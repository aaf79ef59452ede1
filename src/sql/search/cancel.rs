//! Work on other threads that ends with its query.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::Result;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;

use super::merge;
use super::scan::Run;
use super::through_index::{Candidates, Known, PreparedQuery, search_index, special_rows};
use super::top_k_bound::Bound;
use crate::hnsw::{RowSet, SearchError};
use crate::rows::filter::Bitmap;
use crate::rows::memory::Held;
use crate::sidecar::Sidecar;
use crate::sql::recognize::order_by::KnnRequest;

/// A search that keeps fewer candidates is over in some ten milliseconds, before anybody misses its thread. So is one
/// that looks at every node, if there are no more nodes than this.
pub(crate) const SHORT: usize = 1 << 12;

/// Comparing so many rows takes as long.
const SHORT_ROWS: u64 = 1 << 18;

/// Choosing among so many candidates takes as long.
const SHORT_CHOICE: usize = 1 << 16;

/// Says stop when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    /// Becomes true.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Searches an index: here, or, if that takes long, in a thread for such work, where it stops when this is dropped.
/// `memory` is held until then.
pub(crate) async fn search(
    run: &Arc<Run>,
    sidecar: &Arc<Sidecar>,
    query: &PreparedQuery,
    allowed: Option<Bitmap>,
    known: Known<'_>,
    memory: MemoryReservation,
) -> Result<Result<Candidates, SearchError>> {
    if is_short(run, sidecar, allowed.as_deref()) {
        let allowed = allowed.as_ref().map(|rows| &***rows);
        let found = search_index(run, sidecar, query, allowed, known, None);
        // Without a way to stop it, a search ends where it would have to look at every node.
        if !matches!(found, Err(SearchError::Interrupted)) {
            return Ok(found);
        }
    }
    let stop = StopOnDrop::default();
    let (run, sidecar, query) = (Arc::clone(run), Arc::clone(sidecar), query.clone());
    let known: Option<(Arc<Bound>, f64)> = known.map(|(bound, at_least)| (Arc::clone(bound), at_least));
    let flag = stop.flag();
    let searched = SpawnedTask::spawn_blocking(move || {
        let known = known.as_ref().map(|(bound, at_least)| (bound, *at_least));
        let allowed = allowed.as_ref().map(|rows| &***rows);
        let _held = memory;
        search_index(&run, &sidecar, &query, allowed, known, Some(&flag))
    });
    let found = searched.await;
    drop(stop);
    found.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))
}

/// Whether a search of this index is over soon, unless it finds too little.
fn is_short(run: &Run, sidecar: &Sidecar, allowed: Option<&Held<RowSet>>) -> bool {
    let allowed = allowed.map_or(0, |rows| rows.count());
    run.spec.ef().min(sidecar.node_count()) <= SHORT
        && allowed <= SHORT_ROWS
        && special_rows(sidecar) as u64 <= SHORT_ROWS
}

/// The rows to fetch of each file; where there are many to choose from, in a thread for such work.
pub(crate) async fn choose(found: Vec<Candidates>, request: &Arc<KnnRequest>) -> Result<Vec<Vec<u64>>> {
    let count: usize = found.iter().map(Candidates::len).sum();
    if count <= SHORT_CHOICE {
        return Ok(merge::choose(found, request));
    }
    let request = Arc::clone(request);
    let chosen = SpawnedTask::spawn_blocking(move || merge::choose(found, &request));
    chosen
        .await
        .map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))
}
