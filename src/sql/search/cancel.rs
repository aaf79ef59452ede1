//! Work on other threads that ends with its query.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::Result;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;

use super::scan::Run;
use super::through_index::{Candidates, Known, PreparedQuery, search_index};
use super::top_k_bound::Bound;
use crate::hnsw::SearchError;
use crate::rows::filter::Bitmap;
use crate::sidecar::Sidecar;

/// A search that keeps fewer candidates is over in some ten milliseconds, before anybody misses its thread.
const SHORT: usize = 1 << 12;

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
    if run.spec.ef().min(sidecar.node_count()) <= SHORT {
        let allowed = allowed.as_ref().map(|rows| &***rows);
        return Ok(search_index(run, sidecar, query, allowed, known, None));
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
