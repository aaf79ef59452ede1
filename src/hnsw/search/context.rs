//! Memory that a search reuses from the one before on the same thread.

use std::cell::RefCell;

use crate::hnsw::clusters::nearest::Nearest;
use crate::hnsw::graph::search_layer::Scratch;

/// What a search reuses from the one before on this thread.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) scratch: Scratch,
    pub(crate) nearest: Nearest,
    pub(crate) code: Vec<u8>,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// Runs `search` with this thread's notes.
pub(crate) fn with_notes<T>(search: impl FnOnce(&mut Notes) -> T) -> T {
    NOTES.with(|notes| match notes.try_borrow_mut() {
        Ok(mut notes) => search(&mut notes),
        Err(_) => search(&mut Notes::default()),
    })
}
