//! Memory that a search reuses from the one before on the same thread.

use std::cell::RefCell;

use crate::hnsw::clusters::nearest::Nearest;
use crate::hnsw::graph::search_layer::Scratch;

/// Memory that a search on a thread leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct SearchContext {
    pub(crate) scratch: Scratch,
    pub(crate) nearest: Nearest,
    pub(crate) code: Vec<u8>,
}

thread_local! {
    static CONTEXT: RefCell<SearchContext> = RefCell::default();
}

/// Runs `search` with this thread's context.
pub(crate) fn with_context<T>(search: impl FnOnce(&mut SearchContext) -> T) -> T {
    CONTEXT.with(|context| match context.try_borrow_mut() {
        Ok(mut context) => search(&mut context),
        Err(_) => search(&mut SearchContext::default()),
    })
}
