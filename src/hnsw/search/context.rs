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

/// A thread keeps as many bytes for its next search, and gives more back at once: threads live on, and few searches
/// need so much.
const KEPT: usize = 8 << 20;

impl SearchContext {
    /// The bytes that it holds, but for a few hundred.
    fn bytes(&self) -> usize {
        self.scratch.bytes() + self.nearest.bytes() + self.code.capacity()
    }
}

thread_local! {
    static CONTEXT: RefCell<SearchContext> = RefCell::default();
}

/// Runs `search` with this thread's context.
pub(crate) fn with_context<T>(search: impl FnOnce(&mut SearchContext) -> T) -> T {
    CONTEXT.with(|context| match context.try_borrow_mut() {
        Ok(mut context) => {
            let found = search(&mut context);
            if context.bytes() > KEPT {
                *context = SearchContext::default();
            }
            found
        }
        Err(_) => search(&mut SearchContext::default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_back_what_a_large_search_took() {
        let held = |bytes: usize| {
            with_context(|context| context.scratch.fresh.reserve_exact(bytes / size_of::<u32>()));
            with_context(|context| context.bytes())
        };
        assert_eq!(held(KEPT / 2), KEPT / 2);
        assert_eq!(held(KEPT + 4), 0);
    }
}
